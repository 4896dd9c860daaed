"""The reference genome: prepared once, then its contigs and their lengths."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import pysam

from cordon.errors import UserError
from cordon.files import StrPath, opened, written_beside
from cordon.steps import Steps, silent

Contigs = Mapping[str, int]


def prepare_reference(fasta: StrPath, outdir: StrPath, *, steps: Steps = silent) -> Contigs:
    """Write ``reference.fasta`` (plain), ``.fasta.fai`` and ``.dict`` into ``outdir``.

    ``fasta`` may be plain, gzip or bgzip. Returns the contigs' lengths in bp, in order.
    Raises UserError where it is no FASTA, is truncated, or names a contig twice.
    """
    target = Path(outdir) / "reference.fasta"
    with written_beside(target) as temporary, steps("preparing the reference", 4, "steps") as tick:
        try:
            with opened(fasta) as source, temporary.open("wb") as plain:
                first = source.read(1)
                if first != b">":
                    raise UserError(
                        f"{fasta}: not a FASTA file (it begins with {first!r}, not '>'). "
                        "Give a FASTA, plain, gzip or bgzip."
                    )
                plain.write(first)
                shutil.copyfileobj(source, plain, 1 << 20)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{fasta}: cannot be read to its end ({error}). Copy it again.") from error
        tick()
        # samtools only warns of a contig that is there twice, and leaves the second out.
        contigs = _scan(temporary, fasta)
        tick()
        try:
            pysam.faidx(str(temporary))
            tick()
            dictionary = temporary.with_suffix(".dict")
            pysam.dict("-u", "reference.fasta", "-o", str(dictionary), str(temporary))
        except pysam.SamtoolsError as error:
            raise UserError(
                f"{fasta}: samtools cannot index it: {str(error).strip()}. "
                "Give all lines of a contig one length."
            ) from error
        tick()
        return contigs


def read_fai(path: StrPath) -> Contigs:
    """Contig lengths (bp) in the order of a ``.fai`` file."""
    if not Path(path).exists():
        raise UserError(f"{path}: does not exist. Make it with prepare_reference or `samtools faidx`.")
    contigs: dict[str, int] = {}
    for line in Path(path).read_text().splitlines():
        name, length = line.split("\t")[:2]
        if name in contigs:
            raise UserError(f"{path}: contig {name} is there twice. Give every contig a name of its own.")
        contigs[name] = int(length)
    return contigs


def read_contigs(fasta: StrPath) -> Contigs:
    """Contig lengths (bp) of a FASTA, plain or compressed: from its ``.fai`` when newer, else by reading."""
    index = Path(f"{fasta}.fai")
    if index.exists() and index.stat().st_mtime >= Path(fasta).stat().st_mtime:
        return read_fai(index)
    return _scan(fasta, fasta)


def _scan(path: StrPath, fasta: StrPath) -> Contigs:
    """Contig lengths by reading all of ``path``; what is wrong is said of ``fasta``."""
    contigs: dict[str, int] = {}
    name = ""
    with opened(path) as lines:
        for line in lines:
            if line.startswith(b">"):
                name = line[1:].split()[0].decode(errors="backslashreplace") if line[1:].split() else ""
                if not name or name in contigs:
                    raise UserError(
                        f"{fasta}: contig {name!r} has no name or is there twice. "
                        "Give every contig a name of its own."
                    )
                contigs[name] = 0
            elif not name:
                raise UserError(
                    f"{fasta}: not a FASTA file (its first line does not begin with '>'). "
                    "Give a FASTA, plain, gzip or bgzip."
                )
            else:
                contigs[name] += len(line.strip())
    if not contigs:
        raise UserError(f"{fasta}: holds no sequence. Give a FASTA with at least one contig.")
    return contigs
