"""What the tests share: a small genome, builders of its files, and the real data where they are."""

from __future__ import annotations

import os

# Workers share the processors, and so do the processes that they start: a thread that waits for another one
# spins, and tests took four times as long. Whatever computes reads it as it is imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(workers)))

import gc
import importlib.util
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pysam
import pytest
from click.testing import CliRunner

from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with pipelines and federations first, or one worker ends with them while the other is idle."""
    long = ("pipeline", "federation")
    first = {item.path for item in items if any(item.get_closest_marker(name) for name in long)}
    items.sort(key=lambda item: item.path not in first)


def pytest_collection_finish() -> None:
    """What is imported stays: no search for garbage looks through it again, here or in what tests fork."""
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What failed is told at once, so that a run that is cut off has told it."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        told = f"\n{report.nodeid}: failed at its {report.when}\n{report.longreprtext}\n"
        print(told, file=sys.__stderr__, flush=True)


@dataclass(frozen=True)
class Read:
    """An aligned read: 0-based start; without bases, those of the reference under its CIGAR."""

    start: int
    cigar: str = "100M"
    bases: str = ""
    contig: str = "chr1"
    flag: int = 0
    mapping_quality: int = 60
    quality: int = 30
    group: str = "1"
    tags: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Lab:
    """A folder with a reference of two contigs, and builders of files on it."""

    folder: Path
    sequences: Mapping[str, str]

    @property
    def contigs(self) -> dict[str, int]:
        return {name: len(sequence) for name, sequence in self.sequences.items()}

    @property
    def reference(self) -> Path:
        """An indexed plain FASTA."""
        path = self.folder / "reference.fasta"
        if not path.exists():
            path.write_text(fasta(self.sequences))
            pysam.faidx(str(path))
        return path

    def bam(
        self,
        name: str,
        reads: Iterable[Read],
        *,
        sample: str | None = "s1",
        order: str = "coordinate",
        programs: Sequence[Mapping[str, str]] = (),
        contigs: Mapping[str, int] | None = None,
        indexed: bool = True,
    ) -> Path:
        """A BAM with the reads in the order given."""
        path = self.folder / name
        header = {
            "HD": {"VN": "1.6", "SO": order},
            "SQ": [{"SN": contig, "LN": length} for contig, length in (contigs or self.contigs).items()],
            "PG": [dict(program) for program in programs],
        }
        if sample is not None:
            header["RG"] = [{"ID": "1", "SM": sample}]
        with pysam.AlignmentFile(str(path), "wb", header=header) as out:
            for number, read in enumerate(reads):
                out.write(self._segment(out.header, f"r{number}", read))
        if indexed and order == "coordinate":
            pysam.index(str(path))
        return path

    def vcf(
        self,
        name: str,
        records: Iterable[str],
        *,
        samples: Sequence[str] = ("s1",),
        header: Sequence[str] = (),
        indexed: bool = True,
    ) -> Path:
        """A bgzip VCF of lines ``contig pos ref alt qual filter info format sample...``."""
        path = self.folder / name
        lines = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
        lines += [f"##contig=<ID={contig},length={length}>" for contig, length in self.contigs.items()]
        columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
        lines += [*header, "\t".join(columns + (["FORMAT", *samples] if samples else []))]
        for record in records:
            contig, position, *rest = record.split()
            lines.append("\t".join([contig, position, ".", *rest]))
        plain = path.with_suffix("")
        plain.write_text("\n".join(lines) + "\n")
        pysam.tabix_compress(str(plain), str(path), force=True)
        if indexed:
            pysam.tabix_index(str(path), preset="vcf", force=True)
        return path

    def bed(self, name: str, *intervals: tuple[str, int, int]) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{contig}\t{start}\t{end}\n" for contig, start, end in intervals))
        return path

    def text(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def _segment(self, header: pysam.AlignmentHeader, name: str, read: Read) -> pysam.AlignedSegment:
        segment = pysam.AlignedSegment(header)
        segment.query_name = name
        segment.flag = read.flag
        segment.reference_id = header.get_tid(read.contig)
        segment.reference_start = read.start
        segment.mapping_quality = read.mapping_quality
        segment.cigarstring = read.cigar
        bases = read.bases or self.sequences[read.contig][read.start : read.start + segment.reference_length]
        segment.query_sequence = bases
        segment.query_qualities = pysam.qualitystring_to_array(chr(33 + read.quality) * len(bases))
        if header.to_dict().get("RG"):
            segment.set_tag("RG", read.group)
        for tag, value in read.tags.items():
            segment.set_tag(tag, value)
        return segment


def table_row(**changes: object) -> dict[str, object]:
    """A row of a variant table: one SNV that bcftools called, every feature 0.5, with ``changes``."""
    row: dict[str, object] = {field.name: None for field in LABELLED} | dict.fromkeys(FEATURES, 0.5)
    row |= dict.fromkeys(("site", "patient", "sample", "contig"), "x")
    row |= {"position": 1, "ref": "A", "alt": "C", "callers": "bcftools"}
    row |= {"variant_type": "SNV", "context": "plain", "zygosity": "unknown"}
    return row | changes


def fasta(sequences: Mapping[str, str]) -> str:
    return "".join(
        f">{name}\n" + "".join(f"{sequence[at : at + 60]}\n" for at in range(0, len(sequence), 60))
        for name, sequence in sequences.items()
    )


def random_bases(length: int, seed: int) -> str:
    """Bases without a run of two equal ones, so that alleles in them have one spelling."""
    source = random.Random(seed)
    bases = "A"
    while len(bases) < length:
        bases += source.choice([base for base in "ACGT" if base != bases[-1]])
    return bases


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """chr1 has a run of ten A at 500-510 and six AC units at 700-712 (0-based); chr2 is plain."""
    chr1 = random_bases(1500, seed=1)
    chr1 = f"{chr1[:499]}C{'A' * 10}G{chr1[511:699]}G{'AC' * 6}G{chr1[713:]}"
    return Lab(tmp_path, {"chr1": chr1, "chr2": random_bases(600, seed=2)})


@pytest.fixture
def command() -> Callable[..., str]:
    """Run ``bin/NAME.py`` in this process with arguments; returns what it printed, fails when it does."""

    def run(name: str, *arguments: str) -> str:
        spec = importlib.util.spec_from_file_location(name, ROOT / "bin" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result = CliRunner().invoke(module.main, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases as they are before the grid, which is post-processing after the noise."""
    monkeypatch.setattr("cordon.privacy.clipping.on_grid", lambda noisy, scale: noisy)


@pytest.fixture(scope="session")
def na12878() -> Path:
    """The folder of real NA12878 reads, reference and truth on chr20."""
    folder = SHARED / "na12878_chr20"
    if not folder.exists():
        pytest.skip(f"real data are not on this machine ({folder})")
    return folder


@pytest.fixture(scope="session")
def na12878_reference(na12878: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cordon.genome.reference import prepare_reference

    folder = tmp_path_factory.mktemp("hg19")
    prepare_reference(na12878 / "hg19.chr20_9995k_11095k.masked.fa.gz", folder)
    return folder / "reference.fasta"


@pytest.fixture(scope="session")
def na12878_bam(na12878: Path, na12878_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cordon.reads.normalise import normalise_reads

    bam = tmp_path_factory.mktemp("reads") / "NA12878.bam"
    source = na12878 / "NA12878.chr20_10mb.bam"
    normalise_reads(bam=source, sample="NA12878", reference=na12878_reference, output=bam)
    return bam


@pytest.fixture(scope="session")
def real_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NA12878's real calls on chr1, normalised: haplotype_caller, unified_genotyper and truth (.vcf.gz).

    Their reference is not at hand: `reference.fasta` has the files' own bases and N everywhere else.
    """
    from cordon.calls.normalise import normalise_variants

    source = SHARED / "na12878_chr1_calls"
    if not source.exists():
        pytest.skip(f"real data are not on this machine ({source})")
    files = {"haplotype_caller": "haplotype_caller", "unified_genotyper": "unified_genotyper"}
    files["truth"] = "NA12878.subset"
    folder = tmp_path_factory.mktemp("calls")
    sequence = bytearray(b"N" * 7_000_000)
    for name in files.values():
        with pysam.VariantFile(str(source / f"{name}.vcf.gz")) as records:
            for record in records:
                sequence[record.start : record.stop] = record.ref.encode()
    reference = folder / "reference.fasta"
    reference.write_text(fasta({"chr1": sequence.decode()}))
    pysam.faidx(str(reference))
    for target, name in files.items():
        given = {"vcf": source / f"{name}.vcf.gz", "reference": reference, "sample": "NA12878"}
        normalise_variants(**given, output=folder / f"{target}.vcf.gz")
    return folder
