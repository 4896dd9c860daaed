"""What every `bin/` command shares: errors become one message and an exit status."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import click

from cordon.errors import CordonError

P = ParamSpec("P")
R = TypeVar("R")

# A file that must be there, and a file that the command will make.
EXISTING = click.Path(exists=True, dir_okay=False)
OUTPUT = click.Path(dir_okay=False)


def reports_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Print a CordonError's message on stderr and leave with its exit status; let the rest through."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CordonError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)

    return wrapper


@contextmanager
def progress(path: str | None) -> Iterator[Callable[[str], None]]:
    """A function that prints a line with the time of day, and appends it to ``path`` where one is given.

    A workflow engine keeps a task's output until the task ends; the file is there to be followed.
    """
    handle = open(path, "a", encoding="utf-8") if path else None  # noqa: SIM115

    def say(line: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        click.echo(stamped)
        if handle is not None:
            handle.write(stamped + "\n")
            handle.flush()

    try:
        yield say
    finally:
        if handle is not None:
            handle.close()
