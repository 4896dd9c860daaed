"""A sample's reads made ready for calling: right sample, sorted, duplicates marked, indexed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pysam

from cordon.errors import UserError
from cordon.files import StrPath, written_beside
from cordon.genome.contigs import read_aliases
from cordon.genome.reference import read_fai
from cordon.genome.samtools import ERRORS, cannot, quiet, samtools
from cordon.reads.checks import check_contigs, check_groups, read_header
from cordon.reads.duplicates import AUTO, LIBRARIES, Duplicates, count, to_mark
from cordon.steps import Steps, Tick, silent

# Name and read group of a record only (htslib's SAM_QNAME and SAM_RGAUX), so that a CRAM needs no reference.
GROUPS_ONLY = b"required_fields=0x1001"
# The name in an @SQ line of a header.
SEQUENCE_NAME = re.compile(r"^(@SQ\t(?:.*\t)?SN:)([^\t\n]+)", re.MULTILINE)
# The same of the sample in an @RG line.
SAMPLE_NAME = re.compile(r"^(@RG\t(?:.*\t)?SM:)([^\t\n]+)", re.MULTILINE)


def sample_names(header: pysam.AlignmentHeader) -> list[str]:
    """The distinct SM values of a header's read groups (as of `checks.read_header`), sorted."""
    groups = header.to_dict().get("RG", [])
    names = {group["SM"] for group in groups if group.get("SM")}
    return sorted(name.encode("latin-1", "replace").decode(errors="replace") for name in names)


def sorted_by_coordinate(header: pysam.AlignmentHeader) -> bool:
    """Whether the @HD line says that the records are sorted by coordinate."""
    return bool(header.to_dict().get("HD", {}).get("SO") == "coordinate")


def open_alignments(bam: StrPath, reference: StrPath, sample: str) -> pysam.AlignmentFile:
    """Open an indexed BAM or CRAM and check that it holds ``sample`` alone.

    Raises UserError when it cannot be read, has no index, names another sample in its read groups, or
    has contigs that the reference lacks or has at another length.
    """
    try:
        header = read_header(bam)
        alignments = pysam.AlignmentFile(os.fspath(bam), reference_filename=os.fspath(reference))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{bam}: not a readable BAM or CRAM ({error}). Copy it again from its source."
        ) from error
    check_sample(header, bam, sample)
    check_contigs(header, bam, reference)
    if not alignments.has_index():
        raise UserError(f"{bam}: has no index. Make it with normalise_reads or `samtools index`.")
    return alignments


def check_sample(header: pysam.AlignmentHeader, bam: StrPath, sample: str) -> None:
    """Raise UserError unless every read group's SM is ``sample``."""
    names = sample_names(header)
    remedy = f"set the name with `samtools addreplacerg -r ID:1 -r SM:{sample}`."
    if names != [sample]:
        raise UserError(
            f"{bam}: its read groups name sample {', '.join(names) or 'none'}, not {sample}. "
            f"Correct the samplesheet, or {remedy}"
        )
    nameless = [group["ID"] for group in header.to_dict()["RG"] if not group.get("SM")]
    if nameless:
        raise UserError(f"{bam}: its read group {nameless[0]} names no sample (SM). Correct it, or {remedy}")


def normalise_reads(
    *,
    bam: StrPath,
    sample: str,
    reference: StrPath,
    output: StrPath,
    named: str | None = None,
    threads: int = 1,
    aliases: StrPath | None = None,
    mark_duplicates: str = AUTO,
    library: str = LIBRARIES[0],
    steps: Steps = silent,
) -> tuple[str, Duplicates]:
    """Write the reads sorted, duplicate-marked and indexed (``output`` and ``output.bai``).

    ``bam`` is a BAM or CRAM. Its read groups must name the sample ``named`` (by default ``sample``); those
    that are written name ``sample``. ``aliases`` is a table of contig names (`cordon.genome.contigs`):
    the header is rewritten with the reference's, names inside SA, XA and OA tags stay as they are.
    Returns one line that says what was done, and how many duplicates there are. The duplicate marking is
    samtools': collate, fixmate -m, sort, markdup; whether there is one, ``mark_duplicates`` and ``library``
    say (`duplicates.to_mark`). There is no sort where @HD says so and the records are in order. Raises
    UserError on a wrong sample, reads without its read groups, another reference, or reads that samtools
    cannot process.
    """
    check_readable(bam)
    names = read_aliases(aliases)
    named = named or sample
    try:
        with quiet(), pysam.AlignmentFile(os.fspath(bam), format_options=[GROUPS_ONLY]) as source:
            header, is_bam = read_header(bam), bool(source.is_bam)
            check_sample(header, bam, named)
            renamed = names.resolve(header.references, read_fai(f"{os.fspath(reference)}.fai"))
            check_contigs(header, bam, reference, renamed)
            check_groups(source, header, bam)
    except (OSError, ValueError) as error:  # closing after a failed read fails too
        raise UserError(f"{bam}: its records cannot be read. Copy it again from its source.") from error
    common = ["-@", str(threads - 1), "--reference", os.fspath(reference)]
    mark = to_mark(bam, header, mark_duplicates, library)
    with written_beside(output) as temporary, steps("normalising reads", 6 if mark else 3, "steps") as tick:
        given: StrPath = bam
        rewritten = bool(renamed) or named != sample
        if rewritten:
            given = temporary.with_suffix(".renamed.bam")
            source_bam = bam if is_bam else _decoded(bam, reference, renamed, temporary, threads)
            _rename(source_bam, header, renamed, sample, given, about=bam)
        if mark:
            done = "sorted, duplicates marked"
            _mark_duplicates(given, temporary, common, bam, tick)
        elif not sorted_by_coordinate(header):
            done = "sorted"
            _sort(given, temporary, common, about=bam)
        else:
            done = _kept(given, temporary, common, about=bam)
        if not mark:
            tick()
        if rewritten:
            for step in (Path(given), temporary.with_suffix(".decoded.bam")):
                step.unlink(missing_ok=True)
        if not Path(f"{temporary}.bai").exists():
            samtools(pysam.index, *common[:2], str(temporary), about=bam)
        tick()
        found = count(temporary, header, marked=mark, threads=threads)
        tick()
    done += "" if mark else f", duplicates {found.marking}"
    done += f", contigs renamed: {len(renamed)}" if renamed else ""
    return done, found


def check_readable(bam: StrPath) -> None:
    """Raise UserError when a BAM or CRAM is missing, empty or truncated (samtools quickcheck)."""
    if not Path(bam).exists():
        raise UserError(f"{bam}: does not exist. Check the path.")
    samtools(
        pysam.quickcheck, os.fspath(bam), about=bam, why="is truncated or no BAM or CRAM. Copy it again."
    )


def _kept(source: StrPath, output: Path, common: list[str], about: StrPath) -> str:
    """The reads as they are, as BAM with its index; sorted where the header wrongly says that they are."""
    with quiet(), pysam.AlignmentFile(os.fspath(source)) as file:
        is_bam = bool(file.is_bam)
    if is_bam:
        shutil.copyfile(source, output)
    else:
        samtools(pysam.view, *common, "-b", "-o", str(output), os.fspath(source), about=about)
    if _indexed(output):
        return "sorted already"
    disordered = output.with_suffix(".disordered.bam")
    os.replace(output, disordered)
    _sort(disordered, output, common, about)
    disordered.unlink()
    return "sorted (the header had said so already)"


def _decoded(
    cram: StrPath, reference: StrPath, renamed: Mapping[str, str], beside: Path, threads: int
) -> Path:
    """A CRAM as BAM, its contigs named as in the CRAM: samtools looks the sequences up by those names.

    The reference is the same file under another name, with an index that has the CRAM's names.
    """
    names = {target: name for name, target in renamed.items()}
    fasta = beside.with_suffix(".renamed.fasta")
    fasta.symlink_to(Path(reference).resolve())
    index = [line.split("\t", 1) for line in Path(f"{os.fspath(reference)}.fai").read_text().splitlines()]
    lines = [f"{names.get(name, name)}\t{rest}\n" for name, rest in index]
    Path(f"{fasta}.fai").write_text("".join(lines))
    decoded = beside.with_suffix(".decoded.bam")
    options = ["-@", str(threads - 1), "-b1", "-T", str(fasta), "-o", str(decoded)]
    samtools(pysam.view, *options, os.fspath(cram), about=cram)
    for step in (fasta, Path(f"{fasta}.fai")):
        step.unlink()
    return decoded


def _rename(
    bam: StrPath,
    header: pysam.AlignmentHeader,
    renamed: Mapping[str, str],
    sample: str,
    target: Path,
    about: StrPath,
) -> None:
    """A copy whose header has other contig names, and the sample's; the records, which hold numbers and
    read groups' ids, are copied as blocks."""
    lines = SEQUENCE_NAME.sub(lambda line: line[1] + renamed.get(line[2], line[2]), str(header))
    lines = SAMPLE_NAME.sub(lambda line: line[1] + sample, lines)
    text = target.with_suffix(".header.sam")
    text.write_bytes(lines.encode("latin-1"))
    try:
        with quiet(ERRORS):
            pysam.reheader("-P", str(text), os.fspath(bam), save_stdout=str(target))
    except pysam.SamtoolsError as error:
        raise UserError(f"{about}: {cannot('write its header anew', error)}") from error
    text.unlink()


def _indexed(bam: Path) -> bool:
    """Whether an index could be made, which shows that every record is in order."""
    try:
        with quiet():
            pysam.index(str(bam), catch_stdout=False)
    except pysam.SamtoolsError:
        Path(f"{bam}.bai").unlink(missing_ok=True)
        return False
    return True


def _sort(source: StrPath, output: Path, common: list[str], about: StrPath) -> None:
    """samtools sort, its scratch files beside the output."""
    scratch = ["-T", str(output.with_suffix(".sorting"))]
    samtools(pysam.sort, *common, *scratch, "-O", "bam", "-o", str(output), os.fspath(source), about=about)


def _mark_duplicates(source: StrPath, output: Path, common: list[str], about: StrPath, tick: Tick) -> None:
    """samtools collate | fixmate -m | sort | markdup -c, each step beside the output and gone at the end."""
    steps = [output.with_suffix(f".{name}.bam") for name in ("collated", "fixed", "sorted")]
    collated, fixed, ordered = (str(step) for step in steps)
    scratch = ["-T", str(output.with_suffix(".scratch"))]
    samtools(pysam.collate, *common, *scratch, "-l", "1", "-o", collated, os.fspath(source), about=about)
    tick()
    samtools(pysam.fixmate, *common[:2], "-m", "-u", collated, fixed, about=about)
    steps[0].unlink()
    tick()
    samtools(pysam.sort, *common[:2], *scratch, "-l", "1", "-o", ordered, fixed, about=about)
    steps[1].unlink()
    tick()
    samtools(pysam.markdup, *common[:2], *scratch, "-c", ordered, str(output), about=about)
    steps[2].unlink()
    tick()
