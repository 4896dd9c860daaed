"""How Sphinx builds this site: `make docs`. It fetches nothing, and every warning is an error."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This tree's own package and commands, and the directives that read them.
sys.path[:0] = [str(ROOT / "docs" / "ext"), str(ROOT / "src"), str(ROOT / "bin")]

from cordon import __version__  # noqa: E402

project = "Cordon"
author = "Cordon's maintainers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "reference_pages",
]
exclude_patterns = ["ext"]
nitpicky = True
# Options are spelt with two hyphens, and quotation marks in commands are straight.
smartquotes = False
# What docstrings and help texts have between backticks.
default_role = "literal"

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

# What overrides a library's method says no more than the library's own pages.
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
# Docstrings tell types, shapes and units; annotations would name what other projects document.
autodoc_typehints = "none"
autodoc_use_type_comments = False
# What takes seconds to import and has no part in docstrings.
autodoc_mock_imports = [
    "dp_accounting",
    "flwr",
    "opacus",
    "rfc3987_syntax",
    "scipy",
    "sklearn",
    "torch",
]
nitpick_ignore = [("py:class", "Module")]

html_theme = "furo"
html_title = f"Cordon {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False
