"""Run what is in bin/ in this process."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import click
from click.testing import CliRunner, Result

from conftest import ROOT


@cache
def command_of(name: str) -> click.Command:
    """The click command of ``bin/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "bin" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = getattr(module, "main", None) or module.audit
    assert isinstance(found, click.Command)
    return found


def command(name: str, *words: object) -> Result:
    """What it did; fails where the command does."""
    result = CliRunner().invoke(command_of(name), [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result
