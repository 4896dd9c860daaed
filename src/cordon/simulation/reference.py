"""The cohort's reference: made up with the genome's difficulties, or read from a real FASTA."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam

from cordon.errors import UserError
from cordon.simulation.sequence import UNKNOWN, Codes, complement, composed, decode, diverge, encode

SHORTEST_BP = 10_000
DEFAULT_LENGTH_BP = 100_000
OWN_CONTIG = "chrS"
_LINE_BP = 60

# Interspersed repeats: consensus length (bp), GC share, share of the genome, range of the copies' divergence.
_FAMILIES = (
    (290, 0.60, 0.11, (0.03, 0.16)),
    (1500, 0.42, 0.14, (0.04, 0.20)),
    (180, 0.45, 0.05, (0.15, 0.28)),
)


@dataclass(frozen=True)
class Reference:
    """One contig: its name and its bases as codes."""

    contig: str
    codes: Codes

    @property
    def md5(self) -> str:
        """Return the checksum that the SAM specification asks for in @SQ M5."""
        return hashlib.md5(decode(self.codes).encode(), usedforsecurity=False).hexdigest()


def invented(length: int, rng: np.random.Generator) -> Reference:
    """Return a made-up contig of ``length`` bp.

    It has isochores, interspersed repeats, homopolymers, short tandem repeats, and segmental
    duplications of which both copies are in the reference.
    """
    inserts = _interspersed(length, rng) + _low_complexity(length, rng)
    backbone = _isochores(length - sum(insert.size for insert in inserts), rng)
    cuts = np.sort(rng.integers(0, backbone.size, len(inserts)))
    parts: list[Codes] = []
    order = rng.permutation(len(inserts))
    for piece, pick in zip(np.split(backbone, cuts)[:-1], order, strict=True):
        parts += [piece, inserts[pick]]
    parts.append(backbone[cuts[-1] :])
    codes = np.concatenate(parts)
    _duplicate_segments(codes, rng)
    return Reference(OWN_CONTIG, codes)


def _isochores(length: int, rng: np.random.Generator) -> Codes:
    parts: list[Codes] = []
    done = 0
    while done < length:
        size = min(int(rng.integers(4_000, 12_000)), length - done)
        parts.append(composed(size, float(rng.uniform(0.36, 0.55)), rng))
        done += size
    return np.concatenate(parts)


def _interspersed(length: int, rng: np.random.Generator) -> list[Codes]:
    copies: list[Codes] = []
    for size, gc, share, (closest, farthest) in _FAMILIES:
        consensus = composed(size, gc, rng)
        filled = 0
        while filled < share * length:
            # Retrotransposons are cut off at their 5' end and carry a poly-A tail at the 3' end.
            kept = size if size < 500 else int(size * rng.uniform(0.15, 1.0))
            copy = diverge(consensus[-kept:], float(rng.uniform(closest, farthest)), rng)
            copy = np.concatenate([copy, np.zeros(int(rng.integers(4, 18)), dtype=np.uint8)])
            copies.append(complement(copy)[::-1] if rng.random() < 0.5 else copy)
            filled += copy.size
    return copies


def _low_complexity(length: int, rng: np.random.Generator) -> list[Codes]:
    found: list[Codes] = []
    for _ in range(length // 900):
        base = rng.choice(4, p=[0.42, 0.08, 0.08, 0.42])
        found.append(np.full(7 + min(int(rng.geometric(0.22)), 14), base, dtype=np.uint8))
    for _ in range(length // 3_000):
        unit = composed(int(rng.integers(2, 5)), 0.4, rng)
        found.append(np.tile(unit, int(rng.integers(5, 14))))
    return found


def _duplicate_segments(codes: Codes, rng: np.random.Generator) -> None:
    """Overwrite some places with nearly identical copies of others: both copies stay in the reference."""
    for _ in range(max(1, codes.size // 40_000)):
        size = int(rng.integers(1_000, 2_000))
        source, target = rng.integers(600, codes.size - size - 600, 2)
        copy = diverge(codes[source : source + size], float(rng.uniform(0.006, 0.02)), rng)
        codes[target : target + copy.size] = copy


def read(path: Path, contig: str | None, length: int | None) -> Reference:
    """Read one contig of a FASTA (plain, gzip or bgzip), or its first ``length`` bp.

    Without ``contig`` the first of the file is taken.

    Raises:
        UserError: the file cannot be read, has no such contig, or the contig is too short.
    """
    names: list[str] = []
    codes: Codes | None = None
    try:
        with pysam.FastxFile(str(path)) as fasta:
            for entry in fasta:
                names.append(entry.name)
                if codes is None and contig in (None, entry.name):
                    contig, codes = entry.name, encode(entry.sequence or "")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Give a FASTA, plain or gzipped.") from error
    if not names:
        raise UserError(f"{path}: holds no sequence. Give a FASTA, plain or gzipped.")
    if codes is None:
        raise UserError(
            f"{path}: has no contig '{contig}' of the sites VCF; it has {', '.join(names[:5])}. "
            "Give the reference that the VCF was made on, or rename the contig in one of them."
        )
    codes = codes[:length]
    known = int((codes != UNKNOWN).sum())
    if known < SHORTEST_BP:
        raise UserError(
            f"{path}: {contig} gives {known} bp that are not N; a cohort needs {SHORTEST_BP}. "
            "Give a longer contig or a larger --length."
        )
    return Reference(str(contig), codes)


def write(reference: Reference, path: Path) -> None:
    """Write the FASTA and its .fai index, each moved into place when whole."""
    text = decode(reference.codes)
    lines = [text[at : at + _LINE_BP] for at in range(0, len(text), _LINE_BP)]
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(f">{reference.contig}\n" + "\n".join(lines) + "\n")
    pysam.faidx(str(temporary))
    Path(f"{temporary}.fai").replace(f"{path}.fai")
    temporary.replace(path)
