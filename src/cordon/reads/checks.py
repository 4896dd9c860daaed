"""Whether reads fit the reference and name their read groups, from the header and the first records."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import pysam

from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.reference import read_fai
from cordon.genome.samtools import quiet

# Reads looked at to see whether their read groups are the header's.
LOOKED_AT = 10_000


def read_header(bam: StrPath) -> pysam.AlignmentHeader:
    """The header of a SAM, BAM or CRAM, each byte of it a character (Latin-1).

    pysam reads a header's text only where it is UTF-8, and comments and command lines may be anything.
    Raises OSError where there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "header.sam"
        try:
            with quiet():
                pysam.head(os.fspath(bam), save_stdout=str(text))
        except pysam.SamtoolsError as error:
            raise OSError(f"{bam}: its header cannot be read") from error
        return pysam.AlignmentHeader.from_text(text.read_bytes().decode("latin-1"))


def check_contigs(
    header: pysam.AlignmentHeader,
    bam: StrPath,
    reference: StrPath,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise UserError unless the reference (with its ``.fai``) has every contig, at the same length, alike.

    ``renamed`` has the reference's name of contigs that the header names otherwise. Where the header and
    the reference's ``.dict`` (if it is there) both give a contig's MD5 (@SQ M5), the two must be one. The
    contigs must come in the reference's order, which GATK demands.
    """
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    remedy = "Use the reference that the reads were aligned to."
    digests = _digests(reference)
    order = {name: place for place, name in enumerate(contigs)}
    latest, latest_name = -1, ""
    for line in header.to_dict().get("SQ", []):
        name, length = line["SN"], line["LN"]
        target = renamed.get(name, name)
        if contigs.get(target) != length:
            found = f"{contigs[target]} bp" if target in contigs else "no such contig"
            hint = "" if target in contigs else " A table of contig names (--aliases) maps other names."
            raise UserError(
                f"{bam}: its contig {name} has {length} bp, {reference} has {found}. {remedy}{hint}"
            )
        given, expected = line.get("M5", "").lower(), digests.get(target, "")
        if given and expected and given != expected:
            raise UserError(
                f"{bam}: its contig {name} has another sequence than {target} of {reference} "
                f"(MD5 {given} and {expected}). {remedy}"
            )
        if order[target] < latest:
            raise UserError(
                f"{bam}: its contig {name} comes after {latest_name}, in {reference} it comes before. "
                "Bring the contigs into the reference's order with `gatk ReorderSam`."
            )
        latest, latest_name = order[target], name


def check_groups(source: pysam.AlignmentFile, header: pysam.AlignmentHeader, bam: StrPath) -> None:
    """Raise UserError where one of the first reads has no read group, or one that the header lacks."""
    known = {group["ID"] for group in header.to_dict()["RG"]}
    for read in islice(source.fetch(until_eof=True), LOOKED_AT):
        group = read.get_tag("RG") if read.has_tag("RG") else None
        if group not in known:
            what = f"read group {group}, which its header lacks" if group else "no read group (RG)"
            raise UserError(
                f"{bam}: read {read.query_name} has {what}. Give every read one of the header's read groups, "
                "for example with `samtools addreplacerg -m overwrite_all`."
            )


def _digests(reference: StrPath) -> dict[str, str]:
    """MD5 of the reference's contigs, from the ``.dict`` beside it; nothing where there is none."""
    dictionary = Path(reference).with_suffix(".dict")
    if not dictionary.exists():
        return {}
    lines = [line.split("\t") for line in dictionary.read_text().splitlines() if line.startswith("@SQ")]
    entries = [dict(part.split(":", 1) for part in line[1:] if ":" in part) for line in lines]
    return {entry["SN"]: entry["M5"].lower() for entry in entries if "SN" in entry and "M5" in entry}
