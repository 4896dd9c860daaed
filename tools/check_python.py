"""Say in words that Python is too old, before a package fails for it."""

import sys

if sys.version_info < (3, 11):
    sys.exit(f"Cordon needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.11")
