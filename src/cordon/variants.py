"""Calls as VCF: bcftools' own calls, and any caller's calls split, left-aligned, sorted and indexed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pysam
from pysam import bcftools

from cordon.errors import UserError
from cordon.reads import ERRORS, open_alignments, quiet, samtools
from cordon.tables import written_beside

StrPath = str | os.PathLike[str]

BASES = re.compile("[ACGTN]+")
# Reads for bcftools mpileup: maximal depth a site, and the annotations that scoring keeps.
MAX_DEPTH = "1000"
ANNOTATIONS = "FORMAT/AD,FORMAT/DP,FORMAT/ADF,FORMAT/ADR,FORMAT/SP,INFO/SCR"


def bcftools_call(
    *, bam: StrPath, sample: str, reference: StrPath, output: StrPath, intervals: StrPath | None = None
) -> int:
    """Call with ``bcftools mpileup | call -mv`` into a bgzip VCF with its tbi; returns the number of records.

    ``intervals`` is a BED that limits the calling. Raises UserError where the reads are not of ``sample``.
    """
    open_alignments(bam, reference, sample).close()
    limit = ["-T", os.fspath(intervals)] if intervals else []
    with written_beside(output) as temporary:
        piled = str(temporary.with_suffix(".pileup.bcf"))
        mpileup = [
            "--no-version",
            "-f",
            os.fspath(reference),
            "-d",
            MAX_DEPTH,
            "-a",
            ANNOTATIONS,
            *limit,
            "-Ou",
            "-o",
            piled,
        ]
        samtools(bcftools.mpileup, *mpileup, os.fspath(bam), about=bam)
        samtools(
            bcftools.call, "--no-version", "-mv", "-a", "GQ", "-Oz", "-o", str(temporary), piled, about=bam
        )
        Path(piled).unlink()
        return index(temporary)


def normalise_variants(*, vcf: StrPath, reference: StrPath, sample: str | None, output: StrPath) -> int:
    """Write one record an allele that ``sample`` carries, left-aligned, sorted; returns their number.

    With ``sample`` None the file has no genotypes and every allele is kept.
    Symbolic alleles, ``*``, and alleles that the genotype does not hold (or a missing genotype) are left
    out; exact duplicates too. Raises UserError where REF disagrees with the reference or the sample is
    not in the file.
    """
    with written_beside(output) as temporary:
        named = temporary.with_suffix(".carried.bcf")
        split = temporary.with_suffix(".split.bcf")
        _normalise(_with_contigs(vcf, reference, temporary), reference, split, "-m", "-any", about=vcf)
        _keep_carried(split, named, sample, vcf)
        ordered = temporary.with_suffix(".ordered.bcf")
        samtools(bcftools.sort, "-Ob", "-o", str(ordered), str(named), about=vcf)
        _normalise(ordered, reference, temporary, "-d", "exact", about=vcf)
        for step in temporary.parent.iterdir():
            if step != temporary:
                step.unlink()
        return index(temporary)


def index(vcf: StrPath) -> int:
    """Index a bgzip VCF (tbi) and count its records."""
    samtools(bcftools.index, "-t", "-f", os.fspath(vcf), about=vcf)
    return int(bcftools.index("-n", os.fspath(vcf)))


def _with_contigs(vcf: StrPath, reference: StrPath, beside: Path) -> StrPath:
    """The VCF, or where its header names no contig a copy with the reference's contigs."""
    try:
        with quiet(), pysam.VariantFile(os.fspath(vcf)) as records:
            if len(records.header.contigs):
                return vcf
    except (OSError, ValueError) as error:
        raise UserError(f"{vcf}: not a readable VCF ({error}). Copy it again.") from error
    named = beside.with_suffix(".named.vcf.gz")
    fai = f"{os.fspath(reference)}.fai"
    samtools(bcftools.reheader, "-f", fai, "-o", str(named), os.fspath(vcf), about=vcf)
    return named


def _normalise(vcf: StrPath, reference: StrPath, output: Path, *options: str, about: StrPath) -> None:
    """bcftools norm with the REF column checked; the kind of output is by its suffix."""
    kind = "-Oz" if output.suffix == ".gz" else "-Ob"
    checked = ["--no-version", "-f", os.fspath(reference), "-c", "e"]
    arguments = [*checked, *options, kind, "-o", str(output), os.fspath(vcf)]
    try:
        with quiet(ERRORS):
            bcftools.norm(*arguments, catch_stdout=False)
    except pysam.SamtoolsError as error:
        detail = " ".join(str(error).split())
        mismatch = re.search(r"Reference allele mismatch at (\S+)", detail)
        if mismatch:
            raise UserError(
                f"{about}: REF at {mismatch[1].rstrip(',.')} is not what {reference} has there. "
                "Use the reference that the file was made with."
            ) from error
        raise UserError(f"{about}: bcftools cannot normalise it: {detail}") from error


def _keep_carried(source: Path, target: Path, sample: str | None, vcf: StrPath) -> None:
    """Copy the records whose one ALT is plain bases and in the sample's genotype."""
    with quiet(), pysam.VariantFile(str(source)) as records:
        samples = list(records.header.samples)
        if sample is not None and sample not in samples:
            raise UserError(f"{vcf}: holds sample {', '.join(samples) or 'none'}, not {sample}.")
        records.subset_samples([sample] if sample is not None else [])
        with pysam.VariantFile(str(target), "wb", header=records.header) as kept:
            for record in records:
                alts: list[str] = list(record.alts or [])
                plain = len(alts) == 1 and BASES.fullmatch(alts[0].upper())
                if plain and (sample is None or 1 in (record.samples[0].get("GT") or ())):
                    record.alleles = (record.ref.upper(), alts[0].upper())
                    kept.write(record)
