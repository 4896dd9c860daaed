"""Errors told without what a user's files hold: what a task says may leave the house (Seqera Platform)."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cordon.errors import CordonError, InputProblems, KeptBack, UserError
from cordon.files import StrPath

Expected = CordonError | OSError | KeyboardInterrupt
STDERR = 2


@contextmanager
def kept_back(path: StrPath, told: Callable[[Expected], tuple[str, int]]) -> Iterator[None]:
    """Within the block standard error goes to the file at ``path``, also what libraries write there.

    An error ends as KeptBack, which says where the file is and nothing that a user's file holds. The file
    (mode 0600) then has the whole message, as ``told`` (message and exit status) has it, or a traceback where
    the error is none that is raised on purpose. It is gone when all went well, or when the call was wrong.
    Raises UserError where it cannot be made.
    """
    file = _made(path)
    sys.stderr.flush()
    before = os.dup(STDERR)
    os.dup2(file, STDERR)
    try:
        yield
        os.unlink(path)
    except click.ClickException:
        os.unlink(path)
        raise
    except (CordonError, OSError, KeyboardInterrupt) as error:
        message, status = told(error)
        os.write(file, f"error: {message}\n".encode())
        raise KeptBack(_without_contents(error, path), status) from None
    except Exception as error:
        os.write(file, traceback.format_exc().encode())
        raise KeptBack(_without_contents(error, path), CordonError.exit_code) from None
    finally:
        sys.stderr.flush()
        os.dup2(before, STDERR)
        os.close(before)
        os.close(file)


def _made(path: StrPath) -> int:
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be made ({error.strerror}), and with private names errors are told there. "
            "Check --state_dir."
        ) from error


def _without_contents(error: BaseException, path: StrPath) -> str:
    """What may be told anywhere, and where the rest is."""
    rest = f"Names, and what files hold, are left out here; the whole message is in {os.path.abspath(path)}."
    match error:
        case InputProblems():
            return f"{error.without_contents()}\n{rest}"
        case UserError():
            return f"the input is refused. {rest}"
        case OSError():
            return f"{error.strerror or type(error).__name__}. {rest}"
    return f"{type(error).__name__}. {rest}"
