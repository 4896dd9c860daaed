"""Regions of the genome from a BED file, and which alleles lie inside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordon.errors import InputProblems, Problem
from cordon.files import StrPath, opened

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Picard's and GATK's form of intervals, which counts from 1.
INTERVAL_LIST = (
    "is the header of an interval list, which is no BED.",
    "Make a BED of it with `gatk IntervalListToBed -I IN.interval_list -O OUT.bed`.",
)
# Of a coordinate, in bp; contigs of plants have ten.
DIGITS = 12
HEADER_LINE = re.compile(rb"(#|track\b|browser\b)")


@dataclass(frozen=True)
class Regions:
    """Merged, sorted half-open intervals (0-based bp) by contig."""

    starts: Mapping[str, NDArray[np.int64]]
    ends: Mapping[str, NDArray[np.int64]]

    def hold(self, contig: str, starts: ArrayLike, ends: ArrayLike) -> NDArray[np.bool_]:
        """Whether [n] each whole stretch [start, end) lies inside one region."""
        if contig not in self.starts:
            return np.zeros(np.shape(starts), dtype=np.bool_)
        at = np.searchsorted(self.starts[contig], starts, side="right") - 1
        held: NDArray[np.bool_] = (at >= 0) & (np.asarray(ends) <= self.ends[contig][at])
        return held

    @property
    def contigs(self) -> list[str]:
        """The contigs with regions, in the file's order."""
        return list(self.starts)


def read_regions(path: StrPath) -> Regions:
    """Read a BED (plain, gzip or bgzip); overlapping and touching intervals are merged.

    A byte order mark is no part of it, and intervals without a base are left out. Raises InputProblems naming
    the first malformed lines, a Picard interval list, or a file without any interval.
    """
    problems: list[Problem] = []
    intervals: dict[str, list[tuple[int, int]]] = {}
    for row, fields in _lines(path):
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            if fields[0].startswith((b"@HD", b"@SQ")):
                raise InputProblems([Problem(f"{path}, row {row}", *INTERVAL_LIST)])
            what = "is no BED interval: contig, start and end with tabs between, two whole numbers."
        elif max(map(len, fields[1:3])) > DIGITS:
            what = f"has a coordinate of more than {DIGITS} digits, beyond the end of any contig."
        elif fields[0].decode(errors="ignore").encode() != fields[0]:
            what = "names its contig in an encoding that is not UTF-8."
        elif int(fields[1]) == int(fields[2]):
            continue  # a place between two bases holds none
        elif int(fields[1]) > int(fields[2]):
            what = f"start {fields[1].decode()} is not before end {fields[2].decode()}."
        else:
            name = fields[0].decode(errors="replace")
            intervals.setdefault(name, []).append((int(fields[1]), int(fields[2])))
            continue
        problems.append(Problem(f"{path}, row {row}", what, "Correct this line or make the BED again."))
        if len(problems) == 3:
            break
    if not intervals and not problems:
        problems.append(Problem(str(path), "holds no interval.", "Give a BED with at least one region."))
    if problems:
        raise InputProblems(problems)
    merged = {contig: _merged(found) for contig, found in intervals.items()}
    return Regions(
        {contig: pairs[:, 0] for contig, pairs in merged.items()},
        {contig: pairs[:, 1] for contig, pairs in merged.items()},
    )


def _lines(path: StrPath) -> Iterator[tuple[int, list[bytes]]]:
    with opened(path) as lines:
        for row, line in enumerate(lines, start=1):
            if row == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip() and not HEADER_LINE.match(line):
                yield row, line.rstrip(b"\r\n").split(b"\t")


def _merged(intervals: list[tuple[int, int]]) -> NDArray[np.int64]:
    """The intervals' union, int64 [n, 2], sorted."""
    union: list[list[int]] = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1][1] = max(union[-1][1], end)
        else:
            union.append([start, end])
    return np.array(union, dtype=np.int64)
