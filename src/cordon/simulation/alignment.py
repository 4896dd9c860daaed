"""Real alignment of simulated pairs with minimap2, to a sorted and indexed BAM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mappy
import numpy as np
import pysam

from cordon.errors import CordonError
from cordon.simulation.reads import ReadPairs
from cordon.simulation.reference import Reference
from cordon.simulation.sequence import decode

_PROPER_BP = 1_000
_PAIRED, _PROPER, _UNMAPPED, _MATE_UNMAPPED = 0x1, 0x2, 0x4, 0x8
_REVERSE, _MATE_REVERSE, _FIRST, _SECOND = 0x10, 0x20, 0x40, 0x80


@dataclass(frozen=True)
class ReadGroup:
    """What @RG says of a sample's reads."""

    sample: str
    model: str

    @property
    def line(self) -> str:
        """Return the header line."""
        ident = f"{self.sample}.L1"
        return f"@RG\tID:{ident}\tSM:{self.sample}\tLB:{self.sample}.lib1\tPL:ILLUMINA\tPM:{self.model}"


@dataclass(frozen=True)
class _Placed:
    """One read's alignment: 0-based [start, end), strand, mapping quality, clipped CIGAR, edit distance."""

    start: int
    end: int
    reverse: bool
    quality: int
    cigar: str
    edits: int


def aligner(reference: Reference) -> mappy.Aligner:
    """Build minimap2's short-read index of the reference."""
    index = mappy.Aligner(seq=decode(reference.codes), preset="sr", n_threads=1)
    if not index:
        raise CordonError("minimap2 could not index the simulated reference. Please report this.")
    return index


def _placed(hit: mappy.Alignment, length: int) -> _Placed:
    head, tail = hit.q_st, length - hit.q_en
    if hit.strand < 0:
        head, tail = tail, head
    cigar = f"{head}S" * (head > 0) + hit.cigar_str + f"{tail}S" * (tail > 0)
    return _Placed(hit.r_st, hit.r_en, hit.strand < 0, hit.mapq, cigar, hit.NM)


def _place_pair(index: mappy.Aligner, first: str, second: str) -> tuple[_Placed | None, _Placed | None]:
    best: dict[int, _Placed] = {}
    for hit in index.map(first, second):
        if hit.is_primary and hit.read_num not in best:
            best[hit.read_num] = _placed(hit, len(first if hit.read_num == 1 else second))
    return best.get(1), best.get(2)


def _is_proper(one: _Placed, other: _Placed) -> bool:
    left, right = (other, one) if one.reverse else (one, other)
    return one.reverse != other.reverse and left.start < right.end and right.end - left.start <= _PROPER_BP


def _template_length(me: _Placed | None, mate: _Placed | None, is_first: bool) -> int:
    if me is None or mate is None:
        return 0
    span = max(me.end, mate.end) - min(me.start, mate.start)
    leftmost = (me.start, not is_first) < (mate.start, is_first)
    return span if leftmost else -span


def _record(
    name: str, contig: str, group: str, me: _Placed | None, mate: _Placed | None, is_first: bool,
    bases: str, quality: str,
) -> tuple[int, str]:  # fmt: skip
    """Return the sort key and the SAM line of one read of a pair."""
    flag = _PAIRED | (_FIRST if is_first else _SECOND)
    flag |= _UNMAPPED * (me is None) | _MATE_UNMAPPED * (mate is None)
    if me is not None and mate is not None and _is_proper(me, mate):
        flag |= _PROPER
    if me is not None and me.reverse:
        flag |= _REVERSE
        bases, quality = mappy.revcomp(bases), quality[::-1]
    flag |= _MATE_REVERSE * (mate is not None and mate.reverse)
    tags = f"RG:Z:{group}"
    if mate is not None:
        tags += f"\tMC:Z:{mate.cigar}"
    if me is not None:
        tags += f"\tNM:i:{me.edits}"
    # An unmapped read lies where its mate does, so that both stay together after sorting.
    spot, mate_spot = me or mate, mate or me
    if spot is None or mate_spot is None:
        return 2**40, f"{name}\t{flag}\t*\t0\t0\t*\t*\t0\t0\t{bases}\t{quality}\t{tags}"
    aligned = f"{me.quality}\t{me.cigar}" if me is not None else "0\t*"
    insert = _template_length(me, mate, is_first)
    return spot.start, (
        f"{name}\t{flag}\t{contig}\t{spot.start + 1}\t{aligned}\t=\t{mate_spot.start + 1}\t{insert}"
        f"\t{bases}\t{quality}\t{tags}"
    )


def align(reads: ReadPairs, index: mappy.Aligner, reference: Reference, group: ReadGroup, path: Path) -> None:
    """Align all pairs and write the sorted BAM and its index (``path`` + .bai), each in one move."""
    length = reads.codes.shape[1]
    bases = decode(reads.codes.ravel())
    qualities = (reads.qualities + np.uint8(33)).tobytes().decode("ascii")
    records: list[tuple[int, str]] = []
    for pair in range(reads.codes.shape[0] // 2):
        middle = (2 * pair + 1) * length
        cut = (slice(middle - length, middle), slice(middle, middle + length))
        placed = _place_pair(index, bases[cut[0]], bases[cut[1]])
        name = f"{group.sample}:{pair + 1}"
        for end in (0, 1):
            records.append(
                _record(
                    name, reference.contig, f"{group.sample}.L1", placed[end], placed[1 - end], end == 0,
                    bases[cut[end]], qualities[cut[end]],
                )
            )  # fmt: skip
    records.sort(key=lambda record: record[0])
    header = (
        "@HD\tVN:1.6\tSO:coordinate\n"
        f"@SQ\tSN:{reference.contig}\tLN:{reference.codes.size}\tM5:{reference.md5}\n{group.line}\n"
    )
    _write_bam(header, [line for _, line in records], path)


def _write_bam(header: str, lines: list[str], path: Path) -> None:
    text = path.with_name(f".{path.name}.sam")
    temporary = path.with_name(f".{path.name}.part")
    text.write_text(header + "\n".join(lines) + "\n")
    pysam.view("-b", "--no-PG", "-o", str(temporary), str(text), catch_stdout=False)
    text.unlink()
    pysam.index(str(temporary))
    Path(f"{temporary}.bai").replace(f"{path}.bai")
    temporary.replace(path)
