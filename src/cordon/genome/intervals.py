"""Where to call: all but runs of N, within a BED where one is given, in parts of nearly equal length."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.errors import UserError
from cordon.files import StrPath, written_beside
from cordon.genome.contigs import Aliases
from cordon.genome.reference import Contigs, read_fai
from cordon.genome.regions import Regions, read_regions
from cordon.steps import Steps, silent

# A run of N shorter than this (bp) does not keep a caller's windows apart, so nothing is cut there.
SHORTEST_GAP = 50
# Without a number of parts, one for this many callable bp (begun).
BP_A_PART = 50_000_000
# A cut moves to a gap or an interval's end when one is this near, as a share of a part's length.
MOVE_WITHIN = 0.1
# Bases looked at at once.
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Stretches:
    """Stretches of the genome in its order: contig names, and 0-based half-open starts and ends (bp)."""

    contigs: tuple[str, ...]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def length(self) -> int:
        """All their bp together."""
        return int((self.ends - self.starts).sum())

    def write(self, path: StrPath) -> None:
        """Write them as BED."""
        with written_beside(path) as temporary, temporary.open("w") as file:
            rows = zip(self.contigs, self.starts.tolist(), self.ends.tolist(), strict=True)
            file.writelines(f"{contig}\t{start}\t{end}\n" for contig, start, end in rows)


def split_intervals(
    *,
    reference: StrPath,
    outdir: StrPath,
    whole: StrPath | None = None,
    intervals: StrPath | None = None,
    aliases: Aliases | None = None,
    parts: int | None = None,
    steps: Steps = silent,
) -> list[Stretches]:
    """Write ``outdir``/0001.bed and so on, in genome order, and all of it at ``whole``; returns the parts.

    ``reference`` is a plain FASTA with its ``.fai``. A part's length does not count N. Raises UserError
    where ``intervals`` name a contig that the reference lacks, reach beyond one, or hold N alone.
    """
    called = callable_stretches(reference, intervals, aliases or Aliases(), steps)
    cut = split(called, parts or max(1, -(-called.length // BP_A_PART)))
    folder = Path(outdir)
    shutil.rmtree(folder, ignore_errors=True)
    for number, part in enumerate(cut, start=1):
        part.write(folder / f"{number:04d}.bed")
    if whole is not None:
        called.write(whole)
    return cut


def callable_stretches(
    reference: StrPath, intervals: StrPath | None, aliases: Aliases, steps: Steps = silent
) -> Stretches:
    """The genome without runs of N, and within the BED ``intervals`` where there is one."""
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    limits = _limits(intervals, contigs, aliases, reference) if intervals is not None else None
    names: list[str] = []
    found: list[NDArray[np.int64]] = []
    progress = steps("looking for gaps", sum(contigs.values()), "bp")
    with pysam.FastaFile(os.fspath(reference)) as fasta, progress as tick:
        for contig, length in contigs.items():
            limit = np.array([[0, length]]) if limits is None else limits.get(contig)
            if limit is None:
                tick(length)
                continue
            stretches = np.concatenate([_without_gaps(fasta, contig, *within) for within in limit.tolist()])
            names += [contig] * len(stretches)
            found.append(stretches)
            tick(length)
    if not names:
        where = f"{intervals}: holds" if intervals is not None else f"{reference}: is"
        raise UserError(f"{where} nothing but N. Give regions of the reference that have bases.")
    both = np.concatenate(found)
    return Stretches(tuple(names), both[:, 0], both[:, 1])


def split(called: Stretches, parts: int) -> list[Stretches]:
    """At most ``parts`` parts of nearly equal length, none of them empty, in order."""
    parts = min(parts, called.length)
    ends = np.cumsum(called.ends - called.starts)
    wanted = np.arange(1, parts) * called.length / parts
    after = np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - ends[before] < ends[after] - wanted, ends[before], ends[after])
    near = np.abs(nearest - wanted) <= MOVE_WITHIN * called.length / parts
    cuts = np.where(near, nearest, np.round(wanted)).astype(np.int64)
    bounds = [0, *cuts.tolist(), called.length]
    return [_between(called, ends, bounds[at], bounds[at + 1]) for at in range(parts)]


def _between(called: Stretches, ends: NDArray[np.int64], first: int, last: int) -> Stretches:
    """What lies between two distances (bp, counted along the stretches), ``ends`` their running sum."""
    begins = ends - (called.ends - called.starts)
    rows = np.flatnonzero((ends > first) & (begins < last))
    starts = called.starts[rows] + np.maximum(0, first - begins[rows])
    stops = called.ends[rows] - np.maximum(0, ends[rows] - last)
    return Stretches(tuple(called.contigs[row] for row in rows), starts, stops)


def _limits(
    intervals: StrPath, contigs: Contigs, aliases: Aliases, reference: StrPath
) -> dict[str, NDArray[np.int64]]:
    """The BED's merged intervals [n, 2] by the reference's contig names."""
    regions: Regions = read_regions(intervals)
    renamed = aliases.resolve(regions.contigs, contigs)
    limits: dict[str, NDArray[np.int64]] = {}
    for name in regions.contigs:
        contig = renamed.get(name, name)
        if contig not in contigs:
            raise UserError(
                f"{intervals}: names contig {name}, which {reference} lacks. "
                "Use its contig names, or map them with --contig_aliases."
            )
        end = int(regions.ends[name][-1])
        if end > contigs[contig]:
            raise UserError(
                f"{intervals}: reaches to {end} on {name}, which has {contigs[contig]} bp in {reference}. "
                "Use the reference that the file was made with."
            )
        limits[contig] = np.stack([regions.starts[name], regions.ends[name]], axis=1)
    return limits


def _without_gaps(fasta: pysam.FastaFile, contig: str, start: int, end: int) -> NDArray[np.int64]:
    """The stretches [n, 2] of [start, end) between runs of at least SHORTEST_GAP N."""
    edges = np.array(list(_gaps(fasta, contig, start, end)), dtype=np.int64).reshape(-1, 2)
    long = edges[(edges[:, 1] - edges[:, 0] >= SHORTEST_GAP) | (edges[:, 1] - edges[:, 0] == end - start)]
    starts = np.concatenate([[start], long[:, 1]])
    stops = np.concatenate([long[:, 0], [end]])
    return np.stack([starts, stops], axis=1)[starts < stops]


def _gaps(fasta: pysam.FastaFile, contig: str, start: int, end: int) -> Iterator[Sequence[int]]:
    """Runs of N as (start, end), in chunks so that a long contig does not lie in memory."""
    pending: tuple[int, int] | None = None
    for at in range(start, end, _CHUNK):
        bases = np.frombuffer(fasta.fetch(contig, at, min(end, at + _CHUNK)).encode(), dtype=np.uint8)
        missing = (bases == ord("N")) | (bases == ord("n"))
        turns = np.flatnonzero(np.diff(missing, prepend=False, append=False)).reshape(-1, 2) + at
        for first, last in turns.tolist():
            if pending and pending[1] == first:
                first = pending[0]
            elif pending:
                yield pending
            pending = (first, last)
    if pending:
        yield pending
