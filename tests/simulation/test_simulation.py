"""The simulated consortium: same seed same bytes, valid alignments, a right truth, and real difficulties."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import click
import numpy as np
import pysam
import pytest
from click.testing import CliRunner, Result

from cordon.simulation import CohortPlan, simulate_cohort
from cordon.simulation.cohort import build_world
from cordon.simulation.population import Population, draw_genotypes
from cordon.simulation.sequence import decode, encode, tandem_repeats
from cordon.simulation.variants import Variant, compatible, haplotype, left_aligned

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "kgp_chr20_1mb"
REAL_FASTA, REAL_SITES = REAL / "kgp.chr20_1-2mb.fa.gz", REAL / "kgp.chr20_1-2mb.phase3.sites.vcf.gz"


def command() -> click.Command:
    spec = importlib.util.spec_from_file_location("simulate_cohort", ROOT / "bin" / "simulate_cohort.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Command = module.main
    return main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command(), [str(argument) for argument in arguments])


def plan(**changes: object) -> CohortPlan:
    settings = {"sites": 2, "patients": 2, "held_out": 1, "seed": 7, "length": 30_000, "coverage": 12.0}
    return CohortPlan(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("cohort")
    list(simulate_cohort(plan(), outdir))
    return outdir


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_gives_the_same_bytes_in_two_processes_and_leaves_no_temporary_file(
    cohort: Path, tmp_path: Path
) -> None:
    list(simulate_cohort(plan(), tmp_path, jobs=2))
    assert contents(tmp_path) == contents(cohort)
    assert not [name for name in contents(cohort) if Path(name).name.startswith(".")]


@pytest.mark.stress
def test_more_patients_and_sites_leave_the_earlier_patients_as_they_were(
    cohort: Path, tmp_path: Path
) -> None:
    list(simulate_cohort(plan(sites=3, patients=3, held_out=0), tmp_path))
    before, after = contents(cohort), contents(tmp_path)
    patients = [name for name in before if "/" in name]
    assert len(patients) == 4 * 5
    assert all(before[name] == after[name] for name in patients)


def test_sheets_name_every_file_with_relative_paths_and_roles(cohort: Path) -> None:
    rows = list(csv.DictReader((cohort / "samplesheet.csv").open()))
    assert [(row["site"], row["patient"], row["role"]) for row in rows] == [
        ("north", "north-p01", "train"),
        ("north", "north-p02", "test"),
        ("south", "south-p01", "train"),
        ("south", "south-p02", "test"),
    ]
    for row in rows:
        assert row["sample"] == row["patient"]
        assert all((cohort / row[key]).is_file() for key in ("bam", "bai", "truth_vcf", "confident_bed"))
    assert (cohort / "sites.csv").read_text() == "site,declared_patients,weight\nnorth,1,1\nsouth,1,1\n"


def test_bam_is_sorted_whole_and_of_the_sample_and_reference(cohort: Path) -> None:
    path = cohort / "south" / "south-p01.bam"
    assert pysam.quickcheck(str(path)) == ""
    with pysam.AlignmentFile(str(path)) as bam, pysam.FastaFile(str(cohort / "reference.fasta")) as fasta:
        header = bam.header.to_dict()
        assert header["HD"]["SO"] == "coordinate"
        assert header["SQ"][0]["LN"] == fasta.get_reference_length(header["SQ"][0]["SN"]) == 30_000
        assert header["RG"][0]["SM"] == "south-p01"
        positions = [read.reference_start for read in bam if read.reference_start >= 0]
        assert positions == sorted(positions)
        assert bam.count(header["SQ"][0]["SN"], 10_000, 10_100) > 5


def test_mates_agree_and_reads_match_the_reference_by_cigar_and_nm(cohort: Path) -> None:
    with pysam.AlignmentFile(str(cohort / "north" / "north-p01.bam")) as bam:
        reads = list(bam.fetch(until_eof=True))
    fasta = pysam.FastaFile(str(cohort / "reference.fasta"))
    sequence = fasta.fetch(fasta.references[0])
    pairs: dict[str, list[pysam.AlignedSegment]] = {}
    for read in reads:
        pairs.setdefault(str(read.query_name), []).append(read)
        assert read.get_tag("RG") == "north-p01.L1"
    for one, other in pairs.values():
        assert {one.is_read1, other.is_read1} == {True, False}
        assert one.template_length == -other.template_length
        for read, mate in ((one, other), (other, one)):
            assert read.mate_is_unmapped == mate.is_unmapped
            assert read.mate_is_reverse == mate.is_reverse
            assert read.next_reference_start == mate.reference_start
            assert read.is_proper_pair == mate.is_proper_pair
    mapped = [read for read in reads if not read.is_unmapped]
    assert len(mapped) / len(reads) > 0.9
    assert sum(read.is_proper_pair for read in mapped) / len(mapped) > 0.85
    assert any(read.cigartuples and read.cigartuples[0][0] == pysam.CSOFT_CLIP for read in mapped)
    for read in mapped[::50]:
        columns = read.get_aligned_pairs(matches_only=True)
        mismatches = sum(str(read.query_sequence)[q] != sequence[r] for q, r in columns)
        gaps = sum(size for kind, size in read.cigartuples or [] if kind in (pysam.CINS, pysam.CDEL))
        assert read.get_tag("NM") == mismatches + gaps


def test_truth_agrees_with_the_reference_and_is_left_aligned(cohort: Path) -> None:
    fasta = pysam.FastaFile(str(cohort / "reference.fasta"))
    seen = 0
    for path in cohort.glob("*/*.truth.vcf.gz"):
        with pysam.VariantFile(str(path)) as vcf:
            assert list(vcf.header.samples) == [path.name.removesuffix(".truth.vcf.gz")]
            sequence = fasta.fetch(next(iter(vcf.header.contigs)))
            for record in vcf.fetch():
                assert record.alts is not None
                variant = Variant(record.start, str(record.ref), record.alts[0])
                assert sequence[record.start : record.stop] == record.ref
                assert left_aligned(variant, sequence) == variant
                assert sum(allele or 0 for allele in record.samples[0]["GT"]) in (1, 2)
                seen += 1
    assert seen > 100


def test_reads_carry_the_patients_variants(cohort: Path) -> None:
    truth = pysam.VariantFile(str(cohort / "north" / "north-p01.truth.vcf.gz"))
    homozygous = [r for r in truth if r.samples[0]["GT"] == (1, 1) and len(r.ref) == len(r.alts[0]) == 1]
    assert homozygous
    with pysam.AlignmentFile(str(cohort / "north" / "north-p01.bam")) as bam:
        shares = []
        for record in homozygous:
            counts = bam.count_coverage(record.contig, record.start, record.stop, quality_threshold=20)
            depth = sum(column[0] for column in counts)
            shares.append(counts["ACGT".index(record.alts[0])][0] / max(depth, 1))
    assert np.median(shares) > 0.95


def test_collapsed_duplications_pile_up_reads_and_mostly_stay_confident(tmp_path: Path) -> None:
    settings = plan(sites=1, patients=1, held_out=0, length=80_000, coverage=20.0)
    world = build_world(settings)
    list(simulate_cohort(settings, tmp_path))
    with pysam.AlignmentFile(str(tmp_path / "north" / "north-p01.bam")) as bam:
        contig = bam.references[0]
        depth = np.sum(bam.count_coverage(contig), axis=0)
    everywhere = [p for p in world.paralogs if p.presence == 1.0] or list(world.paralogs)
    inside = np.concatenate([depth[p.start + 100 : p.end - 100] for p in everywhere])
    assert inside.mean() > 1.4 * np.median(depth)
    lines = (tmp_path / "north" / "north-p01.confident.bed").read_text().splitlines()
    spans = [(int(start), int(end)) for _, start, end in (line.split() for line in lines)]
    kept = [p for p in world.paralogs if any(start <= p.start and p.end <= end for start, end in spans)]
    assert len(kept) >= len(world.paralogs) / 2
    assert sum(end - start for start, end in spans) > 0.9 * 80_000


def test_genotypes_follow_the_allele_frequencies_in_hardy_weinberg_proportions() -> None:
    world = build_world(plan())
    variants = tuple(
        Variant(at, decode(world.reference.codes[at : at + 1]), "A") for at in range(10, 29_000, 10)
    )
    population = Population(variants, np.full((1, len(variants)), 0.3))
    drawn = draw_genotypes(population, 0, world.reference, False, np.random.default_rng(5))
    copies = drawn.carried.sum(axis=1)
    assert (copies == 1).sum() / len(variants) == pytest.approx(2 * 0.3 * 0.7, abs=0.04)
    assert (copies == 2).sum() / len(variants) == pytest.approx(0.3**2, abs=0.025)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Variant(6, "AA", "A"), Variant(1, "CA", "C")),
        (Variant(4, "A", "AA"), Variant(1, "C", "CA")),
        (Variant(7, "GTGT", "GT"), Variant(6, "AGT", "A")),
        (Variant(1, "CAA", "CAT"), Variant(3, "A", "T")),
    ],
)
def test_left_alignment_gives_the_leftmost_shortest_form(variant: Variant, expected: Variant) -> None:
    assert left_aligned(variant, "GCAAAAAGTGTC") == expected


def test_neighbours_that_could_be_written_together_are_not_drawn_together() -> None:
    pair = [Variant(1, "CA", "C"), Variant(6, "A", "T"), Variant(9, "G", "A")]
    assert compatible(pair, "GCAAAAAGTGTC") == [0, 2]


def test_haplotype_applies_variants_and_remembers_origins() -> None:
    codes, origins = haplotype(encode("ACGTACGT"), [Variant(1, "C", "CTT"), Variant(4, "AC", "A")])
    assert decode(codes) == "ACTTGTAGT"
    assert origins.tolist() == [0, 1, 1, 1, 2, 3, 4, 6, 7]


def test_tandem_repeats_are_found_by_their_smallest_unit() -> None:
    repeats = tandem_repeats(encode("GCAAAAAAAAGCTGATATATATCC"))
    assert list(zip(repeats.start, repeats.end, repeats.unit, strict=True)) == [(2, 10, 1), (14, 22, 2)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sites", 0), "--sites is 0"),
        (("--patients", 0), "--patients is 0"),
        (("--patients", 2, "--held_out", 2), "leave 1 for training"),
        (("--coverage", 0), "--coverage is 0"),
        (("--length", 500), "at least 10000"),
        (("--seed", -1), "give 0 or more"),
        (("--sites_vcf", __file__), "without --reference"),
    ],
)
def test_options_out_of_range_are_refused_with_a_remedy(
    options: tuple[object, ...], words: str, tmp_path: Path
) -> None:
    result = run(*options, "--outdir", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "out").exists()


def test_command_prints_one_line_a_patient_and_accepts_both_spellings(tmp_path: Path) -> None:
    result = run("--sites", 1, "--patients", 2, "--held-out", 1, "--length", 12_000, "--coverage", 4,
                 "--jobs", 1, "--outdir", tmp_path)  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == ["north-p01", "north-p02", "samplesheet"]


def write_inputs(folder: Path, contig: str, info: str, value: str, ref: str = "A") -> tuple[Path, Path]:
    fasta, vcf = folder / "real.fa", folder / "sites.vcf"
    fasta.write_text(">one\n" + "ACGTTGCATCAGGATC" * 800 + "\n")
    vcf.write_text(
        f"##fileformat=VCFv4.2\n##contig=<ID={contig}>\n{info}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"{contig}\t2001\t.\t{ref}\tG\t.\t.\t{value}\n"
    )
    return fasta, vcf


AF_LINE = '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n'


@pytest.mark.parametrize(
    ("contig", "info", "value", "ref", "words"),
    [
        ("two", AF_LINE, "AF=0.5", "A", "no contig 'two'"),
        ("one", "", ".", "A", "has no INFO/AF"),
        ("one", AF_LINE, ".", "A", "one:2001 has no INFO/AF"),
        ("one", AF_LINE, "AF=0.5", "T", "has REF T, the reference has A"),
    ],
)
def test_command_refuses_a_wrong_sites_vcf_and_writes_nothing(
    tmp_path: Path, contig: str, info: str, value: str, ref: str, words: str
) -> None:
    fasta, vcf = write_inputs(tmp_path, contig, info, value, ref)
    outdir = tmp_path / "out"
    result = run("--reference", fasta, "--sites_vcf", vcf, "--outdir", outdir)
    assert result.exit_code == 2
    assert words in result.output
    assert not outdir.exists()


@pytest.mark.parametrize(
    ("fasta", "words"), [("", "holds no sequence"), (">one\n" + "N" * 20_000, "gives 0 bp that are not N")]
)
def test_command_refuses_a_reference_without_sequence(tmp_path: Path, fasta: str, words: str) -> None:
    (tmp_path / "real.fa").write_text(fasta)
    result = run("--reference", tmp_path / "real.fa", "--outdir", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/kgp_chr20_1mb is not on this machine")
def test_real_sequence_and_frequencies_give_a_cohort(tmp_path: Path) -> None:
    real_input = ("--reference", REAL_FASTA, "--sites-vcf", REAL_SITES, "--length", 40_000)
    size = ("--sites", 2, "--patients", 1, "--held_out", 0, "--coverage", 8, "--jobs", 1)
    result = run(*real_input, *size, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    with pysam.FastxFile(str(REAL_FASTA)) as fasta:
        real = str(next(iter(fasta)).sequence)[:40_000]
    assert pysam.FastaFile(str(tmp_path / "reference.fasta")).fetch("z") == real
    known = {(r.start, r.ref, alt) for r in pysam.VariantFile(str(REAL_SITES)) for alt in r.alts or ()}
    truth = list(pysam.VariantFile(str(tmp_path / "north" / "north-p01.truth.vcf.gz")))
    # Most records of phase 3 are already in the left-aligned form.
    assert np.mean([(r.start, r.ref, (r.alts or ("",))[0]) in known for r in truth]) > 0.95
    assert 25 < len(truth) < 150
