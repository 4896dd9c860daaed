"""What every command shares: its facts as lines or as JSON, one message for an error, and an exit status."""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from cordon import foreign
from cordon.console.private_errors import kept_back
from cordon.errors import CordonError, InputProblems, KeptBack, UserError
from cordon.files import read_json

INTERRUPTED = 130
PRIVATE_UMASK = 0o077
AS_JSON = "cordon.as_json"
CALLED = "cordon.called"
REMEDIES = {
    errno.ENOENT: "Check the path, or make the file first.",
    errno.EACCES: "Ask its owner for access, or give another place.",
    errno.EPERM: "Ask its owner for access, or give another place.",
    errno.EROFS: "Give a place that can be written to.",
    errno.ENOSPC: "Free some space, or give a place on another disk, and start again.",
    errno.EDQUOT: "Free some of the quota, or give a place on another disk, and start again.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), and start again.",
    errno.EISDIR: "Give a file, not a folder.",
    errno.ENOTDIR: "Give a folder, not a file.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
    errno.EADDRINUSE: "Give another port, or end what listens there.",
}  # fmt: skip


def collect_seldom() -> None:
    """Look for cycles of garbage after more new objects than Python does by itself.

    Importing PyTorch or Flower makes hundreds of thousands that stay; looking through them all the while
    is an eighth of the time that a start takes, and a last time at the end, when the memory goes anyway, as
    much again.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


class GivenPath(click.Path):
    """A path whose faults are told with what to do about them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} {_what_to_give(os.fspath(value), self.file_okay)}", param, ctx)


def _what_to_give(path: str, file: bool) -> str:
    if not os.path.lexists(path):
        folder, name = os.path.split(path)
        there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        if similar := difflib.get_close_matches(name, there, n=1):
            return f"Is it {os.path.join(folder, similar[0])}?"
        where = "" if os.path.isabs(path) else f"; it was looked for in {os.getcwd()}"
        return f"Check the path{where}."
    if not os.path.exists(path):
        return f"It is a link to {os.path.realpath(path)}, which is not there."
    if os.path.isdir(path) == file:
        return f"Give a {'file' if file else 'folder'}."
    return "Ask its owner for access."


# A file that must be there, one that the command will make, and the same as folders.
EXISTING = GivenPath(exists=True, dir_okay=False)
OUTPUT = GivenPath(dir_okay=False)
EXISTING_FOLDER = GivenPath(exists=True, file_okay=False)
FOLDER = GivenPath(file_okay=False)
# A public key's digits, or a file of them: shells complete files.
KEY = GivenPath(dir_okay=False)

# For commands that read files of a patient's.
PRIVATE_ERRORS = click.option(
    "--private_errors", type=OUTPUT, help="Tell an error here, and elsewhere without what files hold."
)
GIVEN = click.option(
    "--given", type=EXISTING, help="JSON: `sample`, as its files name it, and files' own paths by option."
)


@dataclass
class Facts:
    """What a command found: ``values`` for machines, and ``lines`` that tell people the same."""

    values: dict[str, Any]
    lines: Iterable[str] = field(default_factory=list)
    exit_status: int = 0

    def __add__(self, other: Facts) -> Facts:
        """Both, one after the other."""
        return Facts(self.values | other.values, [*self.lines, *other.lines], other.exit_status)


def facts(line: str, /, **values: Any) -> Facts:
    """Facts told in one ``line``, where {name} stands for the value of that name."""
    return Facts(values, [line.format(**values)])


def each(name: str, line: str, rows: Sequence[Mapping[str, Any]]) -> Facts:
    """A list of ``rows`` under ``name``, told in a ``line`` each."""
    return Facts({name: [dict(row) for row in rows]}, [line.format(**row) for row in rows])


def name_in_files(given: str | None, sample: str | None, **files: str | None) -> str | None:
    """The sample's name in its files: that in the JSON file ``given``, without one ``sample``.

    Errors then call ``files`` (path by option) as the JSON does: a task has them under names of its own. They
    come in a file, since others see command lines. Raises UserError where the JSON names no sample.
    """
    if given is None:
        return sample
    said = read_json(given)
    called = {path: str(said[option]) for option, path in files.items() if path and option in said}
    click.get_current_context().meta[CALLED] = called
    if not isinstance(said.get("sample"), str) or not said["sample"]:
        raise UserError(f'{given}: names no sample. Write {{"sample": "..."}}.')
    return str(said["sample"])


def as_json() -> bool:
    """Whether the command that runs was asked for JSON."""
    return bool(click.get_current_context().meta[AS_JSON])


class Command(click.Command):
    """A command whose function returns its Facts, or None where it has none to tell.

    They are printed as lines, or with --json as one object. An error is one message on stderr and an exit
    status; with --json, stdout then has {"problem", "exit_status"}, and ``verdict`` false where the command
    is there to give one.
    """

    def __init__(self, *arguments: Any, verdict: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.verdict = verdict
        self.context_settings.setdefault("token_normalize_func", _underscored)
        help_ = "Print one JSON object on standard output."
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=help_))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        wanted = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if wanted:
                self._refuse(error.format_message(), error.exit_code)
            raise

    def invoke(self, ctx: click.Context) -> None:
        wanted = ctx.meta[AS_JSON] = ctx.params.pop("as_json")
        private = ctx.params.pop("private_errors", None)
        collect_seldom()
        # What a command writes is of patients, or of who spent what: it is its owner's to share.
        os.umask(PRIVATE_UMASK | os.umask(PRIVATE_UMASK))
        try:
            with kept_back(private, _told) if private else nullcontext():
                found = super().invoke(ctx) or Facts({})
            if wanted:
                given = {} if self.verdict is None else {self.verdict: True}
                _print(given | found.values)
            else:
                for line in found.lines:
                    click.echo(foreign.lines(line))
        except click.ClickException as error:
            if wanted:
                self._refuse(error.format_message(), error.exit_code)
            raise
        except (CordonError, OSError, KeyboardInterrupt, UnicodeError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            message, status = _told(error)
            message = foreign.lines(message)
            click.echo(f"error: {message}", err=True)
            if wanted:
                self._refuse(message, status, error)
            sys.exit(status)
        if found.exit_status:
            sys.exit(found.exit_status)

    def _refuse(self, message: str, status: int, error: BaseException | None = None) -> None:
        values: dict[str, Any] = {} if self.verdict is None else {self.verdict: False}
        values |= {"problem": message, "exit_status": status}
        if isinstance(error, InputProblems):
            values["problems"] = [asdict(problem) for problem in error.problems]
        _print(values)


def command(**options: Any) -> Callable[[Callable[..., Facts | None]], Command]:
    """Make a Command of a function."""
    return click.command(cls=Command, **options)


class Group(click.Group):
    """A group of Commands."""

    command_class = Command


def _underscored(word: str) -> str:
    """Options are written as the pipeline's parameters are; --held-out is taken for --held_out."""
    return word.replace("-", "_")


def _print(values: Mapping[str, Any]) -> None:
    click.echo(json.dumps(values, indent=2, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _told(error: BaseException) -> tuple[str, int]:
    """An error's message, with files called as `name_in_files` was told, and exit status."""
    message, status = _said(error)
    if not isinstance(error, KeptBack):
        for path, name in click.get_current_context().meta.get(CALLED, {}).items():
            message = message.replace(path, name)
    return message, status


def _said(error: BaseException) -> tuple[str, int]:
    if isinstance(error, CordonError):
        return str(error), error.exit_code
    if isinstance(error, UnicodeError):
        return f"a text that was given is not UTF-8 ({error}). Save it as UTF-8.", UserError.exit_code
    if isinstance(error, RecursionError):
        return "a file that was given is nested without end. Make it anew.", UserError.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted before it was done. Start it again.", INTERRUPTED
    assert isinstance(error, OSError)
    where = f"{error.filename2 or error.filename}: " if error.filename else ""
    what = error.strerror or str(error) or type(error).__name__
    if (remedy := REMEDIES.get(error.errno or 0)) is not None:
        return f"{where}{what}. {remedy}", UserError.exit_code
    return f"{where}{what}. Check the disk and the network, and start again.", CordonError.exit_code
