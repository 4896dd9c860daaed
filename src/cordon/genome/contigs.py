"""Contig names: a table that maps a file's names to the reference's. Nothing is mapped without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cordon.errors import InputProblems, Problem, UserError
from cordon.files import StrPath
from cordon.genome.reference import Contigs


@dataclass(frozen=True)
class Aliases:
    """The lines of a table of contig names: row number and the names of one contig."""

    source: str = ""
    lines: tuple[tuple[int, tuple[str, ...]], ...] = ()
    _rows: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._rows.update((name, at) for at, (_, names) in enumerate(self.lines) for name in names)

    def resolve(self, names: Iterable[str], contigs: Contigs) -> dict[str, str]:
        """The reference's name for each of a file's ``names`` that has another one there.

        A name that the reference (``contigs``) has is never changed; neither is one that the table lacks,
        so that whoever reads the file says that the reference lacks it. Raises UserError where a line has
        two names of the reference, or where two of the file's names would become one.
        """
        given = list(dict.fromkeys(names))
        targets = self._targets(contigs)
        changed: dict[str, str] = {}
        for name in given:
            if name in contigs or name not in self._rows:
                continue
            row, _ = self.lines[self._rows[name]]
            target = targets.get(row)
            if target is None:
                continue
            clash = target if target in given else _key(changed, target)
            if clash is not None:
                raise UserError(
                    f"{self.source}, row {row}: {clash} and {name} are both in one file and would both "
                    f"become {target}. Correct the row, or rename the contigs of that file."
                )
            changed[name] = target
        return changed

    def _targets(self, contigs: Contigs) -> dict[int, str]:
        """The name that the reference has, by row; rows without one are left out."""
        targets: dict[int, str] = {}
        for row, names in self.lines:
            known = [name for name in names if name in contigs]
            if len(known) > 1:
                raise UserError(
                    f"{self.source}, row {row}: {' and '.join(known)} are two contigs of the reference, "
                    "not two names of one. Keep one of them in the row."
                )
            if known:
                targets[row] = known[0]
        return targets


def read_aliases(path: StrPath | None) -> Aliases:
    """Read a table of contig names: one contig a line, its names with tabs between, ``#`` comments.

    Without a path the table is empty and maps nothing. Raises InputProblems naming the first rows that
    hold fewer than two names or a name with a blank, or that repeat a name; UserError where it is no text.
    """
    if path is None:
        return Aliases()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable table of contig names ({error}). "
            "Give a text file with the names of one contig a line, tabs between."
        ) from error
    lines: list[tuple[int, tuple[str, ...]]] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for row, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        names = tuple(name.strip() for name in line.split("\t") if name.strip())
        what = _fault(names, first)
        if what:
            problems.append(Problem(f"{path}, row {row}", what, "Correct this row."))
            if len(problems) == 3:
                break
        first.update(dict.fromkeys(names, row))
        lines.append((row, names))
    if not lines and not problems:
        problems.append(Problem(str(path), "holds no contig names.", "Write the names of one contig a line."))
    if problems:
        raise InputProblems(problems)
    return Aliases(str(path), tuple(lines))


def _fault(names: tuple[str, ...], first: dict[str, int]) -> str:
    """What is wrong with a row, or nothing; ``first`` has the row of every name so far."""
    if len(names) < 2:
        return f"holds one name only ({names[0]}); two or more with tabs between are needed."
    blank = [name for name in names if len(name.split()) > 1]
    if blank:
        return f"has a blank in the name {blank[0]!r}; tabs separate names."
    again = [name for name in names if name in first]
    if again:
        return f"names {again[0]} again, which is in row {first[again[0]]}."
    if len(set(names)) < len(names):
        return "holds a name twice."
    return ""


def _key(mapping: dict[str, str], value: str) -> str | None:
    return next((key for key, found in mapping.items() if found == value), None)
