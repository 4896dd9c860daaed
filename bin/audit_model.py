#!/usr/bin/env python3
"""Attack a model before it leaves, and certify it: `cordon audit`, as the pipeline runs it."""

from cordon.auditing.cli import audit

if __name__ == "__main__":
    audit()
