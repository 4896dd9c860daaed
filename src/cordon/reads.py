"""A sample's reads made ready for calling: right sample, sorted, duplicates marked, indexed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pysam

from cordon.errors import UserError
from cordon.reference import read_fai
from cordon.tables import written_beside

StrPath = str | os.PathLike[str]

# Programs whose @PG line says that duplicates are already marked, by a part of their PN or CL.
DUPLICATE_MARKERS = (
    "markduplicates",
    "markdup",
    "samblaster",
    "sambamba markdup",
    "bamsormadup",
    "bammarkduplicates",
    "locuscollector",
    "dragen",
)
# htslib's level of verbosity that shows errors but no warnings.
ERRORS = 1


def sample_names(header: pysam.AlignmentHeader) -> list[str]:
    """The distinct SM values of a header's read groups, sorted."""
    groups = header.to_dict().get("RG", [])
    return sorted({group["SM"] for group in groups if group.get("SM")})


def duplicates_marked(header: pysam.AlignmentHeader) -> bool:
    """Whether a @PG line names a program that marks duplicates."""
    lines = [f"{line.get('PN', '')} {line.get('CL', '')}" for line in header.to_dict().get("PG", [])]
    return any(marker in line.lower() for line in lines for marker in DUPLICATE_MARKERS)


def sorted_by_coordinate(header: pysam.AlignmentHeader) -> bool:
    """Whether the @HD line says that the records are sorted by coordinate."""
    return bool(header.to_dict().get("HD", {}).get("SO") == "coordinate")


def open_alignments(bam: StrPath, reference: StrPath, sample: str) -> pysam.AlignmentFile:
    """Open an indexed BAM or CRAM and check that it holds ``sample`` alone.

    Raises UserError when it cannot be read, has no index, names another sample in its read groups, or
    has contigs that the reference lacks or has at another length.
    """
    try:
        alignments = pysam.AlignmentFile(os.fspath(bam), reference_filename=os.fspath(reference))
    except (OSError, ValueError) as error:
        raise UserError(f"{bam}: not a readable BAM or CRAM ({error}).") from error
    check_sample(alignments.header, bam, sample)
    check_contigs(alignments.header, bam, reference)
    if not alignments.has_index():
        raise UserError(f"{bam}: has no index. Make it with normalise_reads or `samtools index`.")
    return alignments


def check_sample(header: pysam.AlignmentHeader, bam: StrPath, sample: str) -> None:
    """Raise UserError unless every read group's SM is ``sample``."""
    names = sample_names(header)
    if names != [sample]:
        raise UserError(
            f"{bam}: its read groups name sample {', '.join(names) or 'none'}, not {sample}. "
            f"Correct the samplesheet, or set the name with `samtools addreplacerg -r ID:1 -r SM:{sample}`."
        )


def check_contigs(header: pysam.AlignmentHeader, bam: StrPath, reference: StrPath) -> None:
    """Raise UserError unless the reference (with its ``.fai``) has every contig at the same length."""
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    for name, length in zip(header.references, header.lengths, strict=True):
        if contigs.get(name) != length:
            found = f"{contigs[name]} bp" if name in contigs else "no such contig"
            raise UserError(
                f"{bam}: its contig {name} has {length} bp, {reference} has {found}. "
                "Use the reference that the reads were aligned to."
            )


def normalise_reads(
    *, bam: StrPath, sample: str, reference: StrPath, output: StrPath, threads: int = 1
) -> str:
    """Write the reads sorted, duplicate-marked and indexed (``output`` and ``output.bai``).

    Returns one line that says what was done. The duplicate marking is samtools': collate, fixmate -m,
    sort, markdup; it is left out where a @PG line shows that it was done, the sort where @HD does.
    Raises UserError on a wrong sample or reads that samtools cannot process.
    """
    check_readable(bam)
    with pysam.AlignmentFile(os.fspath(bam), reference_filename=os.fspath(reference)) as source:
        header, is_bam = source.header, bool(source.is_bam)
    check_sample(header, bam, sample)
    check_contigs(header, bam, reference)
    common = ["-@", str(threads - 1), "--reference", os.fspath(reference)]
    with written_beside(output) as temporary:
        if not duplicates_marked(header):
            done = "sorted, duplicates marked"
            _mark_duplicates(bam, temporary, common)
        elif not sorted_by_coordinate(header):
            done = "sorted, duplicates were marked already"
            samtools(pysam.sort, *common, "-O", "bam", "-o", str(temporary), os.fspath(bam), about=bam)
        else:
            done = "sorted and duplicates marked already"
            if is_bam:
                shutil.copyfile(bam, temporary)
            else:
                samtools(pysam.view, *common, "-b", "-o", str(temporary), os.fspath(bam), about=bam)
        samtools(pysam.index, str(temporary), about=bam)
    return done


def check_readable(bam: StrPath) -> None:
    """Raise UserError when a BAM or CRAM is missing, empty or truncated (samtools quickcheck)."""
    if not Path(bam).exists():
        raise UserError(f"{bam}: does not exist.")
    samtools(
        pysam.quickcheck, os.fspath(bam), about=bam, why="is truncated or no BAM or CRAM. Copy it again."
    )


@contextmanager
def quiet(level: int = 0) -> Iterator[None]:
    """Keep htslib's messages beyond ``level`` off stderr: what matters of them becomes a UserError."""
    before = pysam.set_verbosity(level)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def samtools(command: Callable[..., object], *arguments: str, about: StrPath, why: str = "") -> None:
    """Run a pysam command; its failure becomes a UserError about the file ``about``."""
    try:
        with quiet(ERRORS):
            command(*arguments, catch_stdout=False)
    except pysam.SamtoolsError as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{about}: {why or 'samtools cannot process it: ' + detail}") from error


def _mark_duplicates(bam: StrPath, output: Path, common: list[str]) -> None:
    """samtools collate | fixmate -m | sort | markdup, each step beside the output and gone at the end."""
    steps = [output.with_suffix(f".{name}.bam") for name in ("collated", "fixed", "sorted")]
    collated, fixed, ordered = (str(step) for step in steps)
    samtools(pysam.collate, *common, "-l", "1", "-o", collated, os.fspath(bam), about=bam)
    samtools(pysam.fixmate, *common[:2], "-m", "-u", collated, fixed, about=bam)
    steps[0].unlink()
    samtools(pysam.sort, *common[:2], "-l", "1", "-o", ordered, fixed, about=bam)
    steps[1].unlink()
    samtools(pysam.markdup, *common[:2], ordered, str(output), about=bam)
    steps[2].unlink()
