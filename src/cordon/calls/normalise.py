"""Calls as VCF: bcftools' own calls, and any caller's calls split, left-aligned, sorted and indexed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pysam
from pysam import bcftools

from cordon.calls.joint import JointCalls
from cordon.calls.vcf_lines import Picker, keep_alleles
from cordon.errors import UserError
from cordon.files import StrPath, opened, written_beside
from cordon.genome.contigs import read_aliases
from cordon.genome.reference import read_fai
from cordon.genome.samtools import ERRORS, index, quiet, samtools
from cordon.reads.normalise import open_alignments
from cordon.steps import Steps, silent

# Reads for bcftools mpileup: maximal depth a site, and the annotations that scoring keeps.
MAX_DEPTH = "1000"
ANNOTATIONS = "FORMAT/AD,FORMAT/DP,FORMAT/ADF,FORMAT/ADR,FORMAT/SP,INFO/SCR"
# Memory of bcftools sort; what does not fit goes to files beside the output.
SORT_MEMORY = "512M"
# The last line that bcftools norm writes on stderr, for example "Lines   total/split/joined:\t6/2/0".
NORM_COUNTS = re.compile(r"^Lines\s+(\S+):\s+(\S+)", re.MULTILINE)

# What may become of records of a truth set or a resource that a filter failed.
DROP, KEEP = FILTERED = ("drop", "keep")


@dataclass(frozen=True)
class Summary:
    """What `normalise_variants` did: numbers of records and, where it says so, of alleles.

    Every allele of a record that is no reference block and lies on the reference is counted once among
    ``symbolic`` to ``kept``.
    """

    records: int = 0  # in the file
    reference_blocks: int = 0  # records without ALT, or with <NON_REF> or <*> alone
    elsewhere: int = 0  # records of sites on contigs that the reference lacks
    filtered: int = 0  # records of a truth set or a resource that a filter failed
    split: int = 0  # records with several ALT
    left_aligned: int = 0  # alleles that were moved or trimmed
    symbolic: int = 0  # alleles <...> and breakends
    spanning_deletion: int = 0  # alleles *
    refused: int = 0  # alleles of a record whose REF or ALT has letters beyond ACGTN
    not_carried: int = 0  # alleles that the sample's genotype does not hold
    duplicates_merged: int = 0  # alleles that were there already
    kept: int = 0  # alleles written
    joint: int = 0  # records of several samples, whose QUAL and INFO were taken as missing
    fields_dropped: int = 0  # values that could not be split with their record, or of VCF 4.4 and later
    scored_before: int = 0  # records that held scores of ours, which were taken away

    def __str__(self) -> str:
        counts = {name: count for name, count in dataclasses.asdict(self).items() if count and name != "kept"}
        rest = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
        return f"alleles kept: {self.kept} ({rest or 'no records'})"

    def write(self, path: StrPath) -> None:
        """Write the numbers as JSON."""
        with written_beside(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def bcftools_call(
    *,
    bam: StrPath,
    sample: str,
    reference: StrPath,
    output: StrPath,
    intervals: StrPath | None = None,
    steps: Steps = silent,
) -> int:
    """Call with ``bcftools mpileup | call -mv`` into a bgzip VCF with its tbi; returns the number of records.

    ``intervals`` is a BED that limits the calling. Raises UserError where the reads are not of ``sample``.
    """
    open_alignments(bam, reference, sample).close()
    limit = ["-R", os.fspath(intervals)] if intervals else []
    with written_beside(output) as temporary, steps("calling", 2, "steps") as tick:
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
        tick()
        samtools(
            bcftools.call, "--no-version", "-mv", "-a", "GQ", "-Oz", "-o", str(temporary), piled, about=bam
        )
        Path(piled).unlink()
        tick()
        return index(temporary)


def normalise_variants(
    *,
    vcf: StrPath,
    reference: StrPath,
    sample: str | None,
    output: StrPath,
    named: str | None = None,
    aliases: StrPath | None = None,
    alone: bool = False,
    passing: bool = False,
    steps: Steps = silent,
) -> Summary:
    """Write one record an allele that ``sample`` carries, left-aligned, sorted, with its tbi.

    ``vcf`` is a VCF, gVCF or BCF, which names the sample ``named`` (by default ``sample``). With ``sample``
    None every allele of the file is kept, without genotypes and with INFO/AF alone (a resource of known
    sites or allele frequencies). ``aliases`` is a table of contig names (`cordon.genome.contigs`). The
    splitting, aligning and merging are `bcftools norm`'s: fields with Number=A, R and G follow their
    allele. Left out and counted: reference blocks, symbolic alleles, ``*``, alleles with letters beyond
    ACGTN, alleles that the genotype does not hold (or a missing genotype), exact duplicates, and sites
    (not a sample's calls) on contigs that the reference lacks. Memory does not grow with the file.

    Of calls that were made together with other samples' (`cordon.calls.joint`), QUAL and INFO are taken
    as missing, and AC, AN and AF are the sample's own; with ``alone`` such calls are refused
    (JointCalls): a sample that is trained on must not tell of another patient. Scores of ours are taken
    away (`cordon.calls.own`). With ``passing``, as truth sets and resources are read, records that a filter
    failed are left out (FILTER neither PASS nor missing). Raises UserError where REF disagrees with the
    reference, the sample is not in the file, or the file is no VCF.
    """
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    picker = Picker(vcf, named or sample, contigs, read_aliases(aliases), written=sample, passing=passing)
    with written_beside(output) as temporary, steps("normalising variants", 5, "steps") as tick:
        picked, split, kept, ordered = (
            temporary.with_suffix(f".{step}")
            for step in ("picked.vcf", "split.vcf", "kept.vcf", "ordered.bcf")
        )
        text = _as_text(vcf, picked)
        try:
            _pick(picker, text, picked)
        except JointCalls as error:
            if alone:
                raise
            picker = replace(picker, joint=error.why, counts=Counter())
            _pick(picker, text, picked)
        counts = picker.counts
        tick()
        about = (vcf, reference)
        checked = ["-f", os.fspath(reference), "-c", "e", "-m", "-any"]
        counts["left_aligned"] = _norm(picked, split, *checked, about=about)["realigned"]
        picked.unlink()
        tick()
        with split.open("rb") as lines, kept.open("wb") as target:
            keep_alleles(lines, target, counts, carried=sample is not None)
        split.unlink()
        tick()
        scratch = ["-m", SORT_MEMORY, "-T", str(temporary.with_suffix(".sorting"))]
        _bcftools(bcftools.sort, *scratch, "-Ob1", "-o", str(ordered), str(kept), about=about)
        kept.unlink()
        tick()
        counts["duplicates_merged"] = _norm(ordered, temporary, "-d", "exact", about=about)["dup_removed"]
        for step in temporary.parent.iterdir():
            if step != temporary:
                step.unlink()
        counts["kept"] = index(temporary)
        tick()
    return Summary(**{name: counts[name] for name in Summary.__dataclass_fields__})


def _pick(picker: Picker, text: StrPath, target: Path) -> None:
    with opened(text) as lines, target.open("wb") as file:
        picker.copy(lines, file)


def write_statistics(vcf: StrPath, output: StrPath) -> None:
    """Write what `bcftools stats` counts in an indexed VCF: types, Ti/Tv, lengths. MultiQC reads it."""
    with written_beside(output) as temporary:
        temporary.write_text(str(bcftools.stats(os.fspath(vcf))))


def _as_text(vcf: StrPath, beside: Path) -> StrPath:
    """The file, or where it is a BCF a copy of it as VCF."""
    try:
        with opened(vcf) as file:
            is_bcf = file.read(3) == b"BCF"
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{vcf}: not a readable VCF ({error}). Copy it again.") from error
    if not is_bcf:
        return vcf
    text = beside.with_suffix(".text.vcf.gz")
    samtools(bcftools.view, "--no-version", "-Oz1", "-o", str(text), os.fspath(vcf), about=vcf)
    return text


def _norm(vcf: Path, output: Path, *options: str, about: tuple[StrPath, StrPath]) -> Counter[str]:
    """bcftools norm; the kind of output is by its suffix. Returns its counts of lines by their names."""
    kind = "-Oz" if output.suffix == ".gz" else "-Ov"
    messages = _bcftools(
        bcftools.norm, "--no-version", *options, kind, "-o", str(output), str(vcf), about=about
    )
    said = NORM_COUNTS.search(messages)
    if said is None:
        return Counter()
    return Counter(dict(zip(said[1].split("/"), map(int, said[2].split("/")), strict=True)))


def _bcftools(command: Callable[..., object], *arguments: str, about: tuple[StrPath, StrPath]) -> str:
    """Run a bcftools command; returns what it wrote on stderr. Its failure becomes a UserError.

    ``about`` has the file and the reference that a message names.
    """
    vcf, reference = about
    try:
        with quiet(ERRORS):
            command(*arguments, catch_stdout=False)
    except pysam.SamtoolsError as error:
        detail = " ".join(str(error).split())
        mismatch = re.search(r"Reference allele mismatch at (\S+)", detail)
        if mismatch:
            raise UserError(
                f"{vcf}: REF at {mismatch[1].rstrip(',.')} is not what {reference} has there. "
                "Use the reference that the file was made with."
            ) from error
        fields = re.search(r"wrong number of fields in (\S+) at (\S+?),? ", detail)
        if fields:
            raise UserError(
                f"{vcf}: {fields[1]} at {fields[2]} has not as many values as its header says. "
                f"Correct the header, or take the field away with `bcftools annotate -x {fields[1]}`."
            ) from error
        if "cannot write" in detail or "parse error" in detail:
            raise UserError(
                f"{vcf}: bcftools cannot read a record (the line above says which). Correct it, or declare "
                "its FILTER, INFO and FORMAT in the header with `bcftools annotate -h`."
            ) from error
        raise UserError(
            f"{vcf}: bcftools cannot normalise it: {detail}. Check it with `bcftools view`, or copy it again."
        ) from error
    return str(command.get_messages() or "")  # type: ignore[attr-defined]
