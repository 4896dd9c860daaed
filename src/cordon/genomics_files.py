"""What is wrong with a BAM, CRAM, VCF or BED before anything runs on it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path

import pysam

from cordon.errors import InputProblems, UserError
from cordon.reads import check_readable, quiet, sample_names, sorted_by_coordinate
from cordon.reference import Contigs, opened
from cordon.regions import read_regions

StrPath = str | os.PathLike[str]
Fault = tuple[str, str]  # what is wrong, remedy

# The empty block that ends every BGZF file (SAM specification, section 4.1.2).
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
# Records looked at to see whether reads are sorted as the header says.
LOOKED_AT = 10_000
# Flag, contig and position of a record only, so that a CRAM needs no reference.
PLACES_ONLY = b"required_fields=0xe"
COPY_AGAIN = "Copy it again from its source."


def file_faults(path: StrPath) -> Iterator[Fault]:
    """A file that does not exist, cannot be read, or is empty."""
    if not Path(path).is_file():
        yield f"{path} does not exist.", "Correct the path, or copy the file there."
    elif not os.access(path, os.R_OK):
        yield f"{path} cannot be read.", "Give this user permission to read it."
    elif Path(path).stat().st_size == 0:
        yield f"{path} is empty.", COPY_AGAIN


def alignment_faults(path: StrPath, sample: str, contigs: Contigs, reference: StrPath) -> Iterator[Fault]:
    """What is wrong with a BAM or CRAM: truncated, unsorted, of another sample, on another reference."""
    try:
        check_readable(path)
        with quiet(), pysam.AlignmentFile(os.fspath(path), format_options=[PLACES_ONLY]) as file:
            yield from _sample_faults(path, file.header, sample)
            lengths = dict(zip(file.references, file.lengths, strict=True))
            yield from contig_faults(path, lengths, contigs, reference)
            yield from _order_faults(path, file)
    except (UserError, OSError, ValueError) as error:
        text = str(error).splitlines()[0]
        yield f"{path} is truncated, or no BAM or CRAM ({text.removeprefix(f'{path}: ')})", COPY_AGAIN


def contig_faults(
    path: StrPath, used: Mapping[str, int | None], contigs: Contigs, reference: StrPath
) -> Iterator[Fault]:
    """Contigs that the reference lacks or has at another length (bp; None where it is not known)."""
    remedy = "Use the reference that the file was made with."
    missing = [name for name in used if name not in contigs]
    other_style = [name for name in missing if _other_style(name) in contigs]
    if other_style:
        name = other_style[0]
        what = f"{path} writes contig {name}, the reference {reference} writes {_other_style(name)}."
        yield what, "Use files of one contig style: a reference with the same names, or rename the contigs."
    elif missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        yield f"{path} has contig {shown}, which the reference {reference} lacks.", remedy
    for name, length in used.items():
        if length is not None and name in contigs and contigs[name] != length:
            what = (
                f"{path} has contig {name} with {length} bp, the reference {reference} with {contigs[name]}."
            )
            yield what, remedy
            return


def vcf_faults(path: StrPath, contigs: Contigs, reference: StrPath) -> Iterator[Fault]:
    """What is wrong with a truth VCF: truncated, no VCF, without records, on another reference."""
    if truncated := list(_bgzf_faults(path)):
        yield from truncated
        return
    used: dict[str, None] = {}
    try:
        with opened(path) as lines:
            if not next(lines, b"").startswith(b"##fileformat=VCF"):
                yield f"{path} is no VCF: its first line is not ##fileformat=VCF.", "Give a VCF."
                return
            for line in lines:
                if not line.startswith(b"#"):
                    used.setdefault(line.split(b"\t", 1)[0].decode())
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        yield f"{path} cannot be read to its end ({error}).", COPY_AGAIN
        return
    if not used:
        yield f"{path} holds no variant.", "Give the sample's truth set, or write role score without truth."
    yield from contig_faults(path, dict.fromkeys(used), contigs, reference)


def bed_faults(path: StrPath, contigs: Contigs, reference: StrPath) -> Iterator[Fault]:
    """What is wrong with a BED: malformed lines, no interval, on another reference."""
    if truncated := list(_bgzf_faults(path)):
        yield from truncated
        return
    try:
        regions = read_regions(path)
    except InputProblems as error:
        for problem in error.problems:
            yield f"{problem.where} {problem.what}", problem.remedy
        return
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        yield f"{path} cannot be read to its end ({error}).", COPY_AGAIN
        return
    yield from contig_faults(path, dict.fromkeys(regions.contigs), contigs, reference)
    for name in regions.contigs:
        if name in contigs and int(regions.ends[name][-1]) > contigs[name]:
            what = f"{path} reaches to {regions.ends[name][-1]} on {name}, which has {contigs[name]} bp."
            yield what, "Use the reference that the file was made with."
            return


def _sample_faults(path: StrPath, header: pysam.AlignmentHeader, sample: str) -> Iterator[Fault]:
    names = sample_names(header)
    if not names:
        remedy = f"Add one with `samtools addreplacerg -r ID:1 -r SM:{sample}`."
        yield f"{path} has no read group with a sample name (@RG SM).", remedy
    elif names != [sample]:
        what = f"{path} holds sample {', '.join(names)} (@RG SM), the row says {sample}."
        yield what, "Write the BAM's sample name in the row, or give this sample's BAM."


def _order_faults(path: StrPath, file: pysam.AlignmentFile) -> Iterator[Fault]:
    remedy = "Sort it with `samtools sort`."
    if not sorted_by_coordinate(file.header):
        yield f"{path} is not sorted by coordinate (@HD SO says so).", remedy
        return
    records = islice(file.fetch(until_eof=True), LOOKED_AT)
    if not _ordered((record.reference_id, record.reference_start) for record in records):
        yield f"{path} says that it is sorted by coordinate but is not.", remedy


def _ordered(places: Iterable[tuple[int, int]]) -> bool:
    """Whether records are sorted; those without a contig (-1) come last."""
    keys = ((contig < 0, contig, start) for contig, start in places)
    return all(first <= second for first, second in pairwise(keys))


def _bgzf_faults(path: StrPath) -> Iterator[Fault]:
    """A bgzip file without the block that ends it."""
    with open(path, "rb") as file:
        head = file.read(14)
        if head[:4] == BGZF_END[:4] and head[12:14] == b"BC":
            file.seek(max(0, Path(path).stat().st_size - len(BGZF_END)))
            if file.read() != BGZF_END:
                yield f"{path} is truncated (no BGZF end block).", COPY_AGAIN


def _other_style(contig: str) -> str:
    """The contig's name with ``chr`` where it has none, without where it has one; M and MT alike."""
    if contig.startswith("chr"):
        return {"chrM": "MT"}.get(contig, contig.removeprefix("chr"))
    return {"MT": "chrM"}.get(contig, f"chr{contig}")
