"""The head of a VCF or BCF, as bytes: what its header declares, and where its first record lies.

pysam reads no VCF that gzip compressed, and a header only where it is text in UTF-8; bcftools reads both.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pysam
from pysam import bcftools

from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.samtools import quiet

CONTIG_LINE = re.compile(rb"##contig=<(?:.*,)?ID=([^,>]+)")
LENGTH = re.compile(rb"[<,]length=(\d+)")
INFO_LINE = re.compile(rb"##INFO=<(?:.*,)?ID=([^,>]+)")


@dataclass(frozen=True)
class Head:
    """What stands at the head of a VCF or BCF.

    ``lines`` are the header's ``##`` lines without line ends; ``contigs`` has the length (bp) of each that it
    declares, None where it says none; ``first`` is the contig of the first record, None without records.
    """

    lines: tuple[bytes, ...]
    samples: tuple[str, ...]
    contigs: Mapping[str, int | None]
    info: frozenset[str]
    first: str | None


def read_head(path: StrPath) -> Head:
    """The head of a VCF or BCF, plain, gzip or bgzip. Raises UserError where it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "head.vcf"
        try:
            with quiet():
                bcftools.head("-n", "1", os.fspath(path), save_stdout=str(copy))
        except pysam.SamtoolsError as error:
            raise UserError(f"{path}: not a readable VCF or BCF. Copy it again, or make it again.") from error
        found = copy.read_bytes().splitlines()
    lines = tuple(line for line in found if line.startswith(b"##"))
    columns, *records = [line.split(b"\t") for line in found if not line.startswith(b"##")] or [[]]
    contigs: dict[str, int | None] = {}
    for line in lines:
        if contig := CONTIG_LINE.match(line):
            length = LENGTH.search(line)
            contigs[_text(contig[1])] = int(length[1]) if length else None
    return Head(
        lines,
        tuple(map(_text, columns[9:])),
        contigs,
        frozenset(_text(match[1]) for line in lines if (match := INFO_LINE.match(line))),
        _text(records[0][0]) if records else None,
    )


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
