"""Every error raised on purpose says what is wrong, and in a sentence of its own what to do instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from cordon import errors

# With a message as their first argument. InputProblems takes Problems, which have a field for the remedy.
RAISED = {name for name in vars(errors) if isinstance(getattr(errors, name), type)} - {
    "InputProblems",
    "Problem",
}
USAGE = {"UsageError", "BadParameter", "ClickException"}
# What ends a sentence, and what begins the next: a word in upper case, or a value.
SECOND = re.compile(r"[.?!)] +(?:[A-Z`]|\{)")
FILES = [*sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "bin").glob("*.py"))]


def words(node: ast.expr) -> str | None:
    """A message as far as it stands in the source, {} for values; None where it is computed elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        said = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return said if re.search(r"[a-z]", said.replace("{}", "")) else None
    if isinstance(node, ast.BinOp):
        return f"{words(node.left) or '{}'}{words(node.right) or '{}'}"
    return None


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and message of each error raised in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in RAISED | USAGE and (said := words(node.args[0])) is not None:
                yield node.lineno, said


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_message_ends_with_what_to_do(path: Path) -> None:
    assert [f"{line}: {said}" for line, said in messages(path) if not SECOND.search(said)] == []


def test_the_walk_finds_the_errors_and_tells_a_remedy_from_none(tmp_path: Path) -> None:
    assert sum(len(list(messages(path))) for path in FILES) > 200
    source = tmp_path / "source.py"
    source.write_text(
        'raise UserError(f"{path}: is empty.")\n'
        'raise UserError(f"{path}: is empty. Copy it again.")\n'
        'raise errors.NotReleased("it failed" + reason)\n'
        "raise UserError(problem)\n"
    )
    assert [(line, bool(SECOND.search(said))) for line, said in messages(source)] == [
        (1, False), (2, True), (3, False),
    ]  # fmt: skip
