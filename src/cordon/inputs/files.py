"""What is wrong with a BAM, CRAM, VCF or BED before anything runs on it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Container, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import pysam

from cordon.calls import joint
from cordon.calls.head import Head, read_head
from cordon.errors import InputProblems, UserError
from cordon.files import StrPath, opened
from cordon.genome.contigs import Aliases
from cordon.genome.reference import Contigs
from cordon.genome.regions import read_regions
from cordon.genome.samtools import quiet
from cordon.reads.checks import read_header
from cordon.reads.normalise import check_readable, sample_names, sorted_by_coordinate

Fault = tuple[str, str]  # what is wrong, remedy


@dataclass(frozen=True)
class Genome:
    """The reference that files must belong to: its path, its contigs' lengths (bp), other names of them."""

    reference: StrPath
    contigs: Contigs
    aliases: Aliases = field(default_factory=Aliases)


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


def alignment_faults(path: StrPath, sample: str, genome: Genome) -> Iterator[Fault]:
    """What is wrong with a BAM or CRAM: truncated, of another sample or reference, not as sorted as it says.

    One whose header says that it is not sorted is right: it will be sorted.
    """
    try:
        check_readable(path)
        with quiet(), pysam.AlignmentFile(os.fspath(path), format_options=[PLACES_ONLY]) as file:
            header = read_header(path)
            yield from _sample_faults(path, header, sample)
            lengths = dict(zip(file.references, file.lengths, strict=True))
            yield from contig_faults(path, lengths, genome)
            yield from _order_faults(path, file, header)
    except (UserError, OSError, ValueError) as error:
        text = str(error).splitlines()[0]
        yield f"{path} is truncated, or no BAM or CRAM ({text.removeprefix(f'{path}: ')})", COPY_AGAIN


def contig_faults(path: StrPath, named: Mapping[str, int | None], genome: Genome) -> Iterator[Fault]:
    """Contigs that the reference lacks or has at another length (bp; None where it is not known)."""
    remedy = "Use the reference that the file was made with."
    contigs, reference = genome.contigs, genome.reference
    try:
        renamed = genome.aliases.resolve(named, contigs)
    except UserError as error:
        yield f"{path} cannot have its contigs renamed: {error}", "Correct --contig_aliases."
        return
    used = {renamed.get(name, name): length for name, length in named.items()}
    missing = [name for name in used if name not in contigs]
    other_style = [name for name in missing if _other_style(name) in contigs]
    if other_style:
        name = other_style[0]
        what = f"{path} writes contig {name}, the reference {reference} writes {_other_style(name)}."
        yield what, "Use files of one contig style, or map the names with --contig_aliases."
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


def vcf_faults(path: StrPath, genome: Genome, *, alone: bool = False) -> Iterator[Fault]:
    """What is wrong with a truth VCF: truncated, no VCF, without records, on another reference.

    With ``alone`` also one of several samples: labels that are trained on must be of one patient.
    """
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
                if line.startswith(b"#CHROM") and alone and (samples := line.count(b"\t") - 8) > 1:
                    what = f"{path} holds {samples} samples, whose genotypes may tell of one another."
                    yield what, "Give a truth set that was made of this sample alone."
                if not line.startswith(b"#"):
                    used.setdefault(line.split(b"\t", 1)[0].decode(errors="backslashreplace"))
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        yield f"{path} cannot be read to its end ({error}).", COPY_AGAIN
        return
    if not used:
        yield f"{path} holds no variant.", "Give the sample's truth set, or write role score without truth."
    yield from contig_faults(path, dict.fromkeys(used), genome)


def calls_faults(path: StrPath, sample: str, genome: Genome, *, alone: bool = False) -> Iterator[Fault]:
    """What is wrong with a caller's VCF, gVCF or BCF: truncated, of another sample or reference.

    One without records is right: a small panel, or a negative control, may have no variant.
    With ``alone`` also calls that were made together with other samples', as far as the header says so. Only
    the header and the first record are looked at, because a gVCF of a genome is long.
    """
    head = yield from _variant_file_faults(path, genome)
    if head is not None and sample not in head.samples:
        what = f"{path} holds sample {', '.join(head.samples) or 'none'}, the row says {sample}."
        yield what, "Give this sample's calls, or rename the sample with `bcftools reheader --samples`."
    elif head is not None and alone:
        several = f"{len(head.samples)} samples" if len(head.samples) > 1 else ""
        if why := several or next(filter(None, map(joint.of_header, head.lines)), ""):
            yield f"{path} was called together with other samples ({why}).", joint.REMEDY


def sites_faults(
    path: StrPath, info: str, genome: Genome, *, patients: Container[str] = ()
) -> Iterator[Fault]:
    """What is wrong with a public VCF of sites, which needs the field INFO/``info`` where that is given.

    It must hold none of the samples ``patients``: one patient's rows would tell of another.
    """
    head = yield from _variant_file_faults(path, genome)
    if head is not None and head.first is None:
        yield f"{path} holds no variant.", "Give the whole resource."
    if own := [sample for sample in (head.samples if head is not None else ()) if sample in patients]:
        yield (
            f"{path} holds sample {own[0]} of the samplesheet: no public resource.",
            "Give one that was made of nobody in the samplesheet, such as gnomAD or dbSNP.",
        )
    if head is not None and info and info not in head.info:
        yield f"{path} has no INFO/{info}.", "Give a resource with allele frequencies, such as gnomAD."


def _variant_file_faults(path: StrPath, genome: Genome) -> Generator[Fault, None, Head | None]:
    """Faults of any VCF or BCF; returns its head where it can be read."""
    if truncated := list(_bgzf_faults(path)):
        yield from truncated
        return None
    try:
        head = read_head(path)
    except UserError:
        yield f"{path} is no readable VCF or BCF.", "Copy it again, or make it again."
        return None
    # A header may name contigs that the calls do not use and the reference has left out.
    try:
        renamed = genome.aliases.resolve(head.contigs, genome.contigs)
    except UserError as error:
        yield f"{path} cannot have its contigs renamed: {error}", "Correct --contig_aliases."
        return head
    lengths = {
        name: length for name, length in head.contigs.items() if renamed.get(name, name) in genome.contigs
    }
    if head.first is not None:
        lengths.setdefault(head.first, None)
    yield from contig_faults(path, lengths, genome)
    return head


def bed_faults(path: StrPath, genome: Genome) -> Iterator[Fault]:
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
    faults = list(contig_faults(path, dict.fromkeys(regions.contigs), genome))
    yield from faults
    renamed = {} if faults else genome.aliases.resolve(regions.contigs, genome.contigs)
    for name in regions.contigs:
        length = genome.contigs.get(renamed.get(name, name))
        if length is not None and int(regions.ends[name][-1]) > length:
            what = f"{path} reaches to {regions.ends[name][-1]} on {name}, which has {length} bp."
            yield what, "Use the reference that the file was made with."
            return


def _sample_faults(path: StrPath, header: pysam.AlignmentHeader, sample: str) -> Iterator[Fault]:
    names = sample_names(header)
    if not names:
        remedy = "Add one with `samtools addreplacerg -r ID:1 -r SM:NAME`, the row's sample as NAME."
        yield f"{path} has no read group with a sample name (@RG SM).", remedy
    elif names != [sample]:
        what = f"{path} holds sample {', '.join(names)} (@RG SM), the row says {sample}."
        yield what, "Write the BAM's sample name in the row, or give this sample's BAM."


def _order_faults(path: StrPath, file: pysam.AlignmentFile, header: pysam.AlignmentHeader) -> Iterator[Fault]:
    if not sorted_by_coordinate(header):
        return
    records = islice(file.fetch(until_eof=True), LOOKED_AT)
    if not _ordered((record.reference_id, record.reference_start) for record in records):
        yield f"{path} says that it is sorted by coordinate but is not.", "Sort it with `samtools sort`."


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
