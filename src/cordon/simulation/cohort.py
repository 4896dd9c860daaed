"""A simulated consortium on disk: reference, patients of every site, truth, and the two sheets."""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mappy
import numpy as np
import pysam

from cordon.arrays import Ints
from cordon.errors import UserError
from cordon.simulation import population as populations
from cordon.simulation import reference as references
from cordon.simulation.alignment import ReadGroup, align, aligner
from cordon.simulation.fragments import join, shear
from cordon.simulation.paralogs import Paralog, draw_paralogs
from cordon.simulation.platforms import Artefacts, Platform, artefacts, platform_of
from cordon.simulation.population import Genotypes, Population
from cordon.simulation.reads import sequence_reads
from cordon.simulation.reference import Reference
from cordon.simulation.sequence import Codes, tandem_repeats
from cordon.simulation.variants import haplotype

SITE_NAMES = ("north", "south", "west", "east", "coast", "lake", "hill", "valley")
SHEET_COLUMNS = ("site", "patient", "sample", "bam", "bai", "truth_vcf", "confident_bed", "role")
# The ends get too few reads to be judged.
_END_BP = 500
_REFERENCE, _POPULATION, _PARALOGS, _ARTEFACTS, _SITE, _DRIFT, _PATIENT = range(7)


@dataclass(frozen=True)
class CohortPlan:
    """What to simulate; ``patients`` and ``held_out`` (of them, role test) count per site.

    Raises:
        UserError: a count, the coverage or the length is out of range, or the sites VCF has no reference.
    """

    sites: int
    patients: int
    held_out: int
    seed: int
    coverage: float = 20.0
    length: int | None = None
    reference: Path | None = None
    sites_vcf: Path | None = None

    def __post_init__(self) -> None:
        checks = (
            (self.sites >= 1, f"--sites is {self.sites}; a consortium has at least 1."),
            (self.patients >= 1, f"--patients is {self.patients}; a site has at least 1."),
            (
                0 <= self.held_out < max(self.patients, 1),
                f"--held_out is {self.held_out} of {self.patients} patients a site; leave 1 for training.",
            ),
            (self.seed >= 0, f"--seed is {self.seed}; give 0 or more."),
            (1 <= self.coverage <= 200, f"--coverage is {self.coverage:g}; give 1 to 200."),
            (
                self.length is None or self.length >= references.SHORTEST_BP,
                f"--length is {self.length} bp; give at least {references.SHORTEST_BP}.",
            ),
            (
                self.sites_vcf is None or self.reference is not None,
                "--sites_vcf is given without --reference. Give the FASTA that the VCF was made on.",
            ),
        )
        wrong = [message for right, message in checks if not right]
        if wrong:
            raise UserError(" ".join(wrong))

    def rng(self, *key: int) -> np.random.Generator:
        """Return the generator of one thing: independent of all others and of the order of work."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


@dataclass(frozen=True)
class World:
    """What all patients of a consortium share."""

    plan: CohortPlan
    reference: Reference
    population: Population
    paralogs: tuple[Paralog, ...]

    def site(self, number: int) -> tuple[Platform, Artefacts]:
        """Return a site's platform and its weak places."""
        platform = platform_of(number, self.plan.rng(_SITE, number))
        return platform, artefacts(self.reference, platform, self.plan.rng(_ARTEFACTS))


@dataclass(frozen=True)
class Patient:
    """One simulated patient by number, and what came out."""

    site: int
    number: int
    variants: int = 0
    pairs: int = 0

    @property
    def site_name(self) -> str:
        """Return the name of the patient's site."""
        return site_name(self.site)

    @property
    def name(self) -> str:
        """Return the patient's id, which is also the sample's."""
        return f"{self.site_name}-p{self.number + 1:02d}"


def site_name(number: int) -> str:
    """Return a site's name: a word for the first ones, then numbered."""
    return SITE_NAMES[number] if number < len(SITE_NAMES) else f"site{number + 1:02d}"


def build_world(plan: CohortPlan) -> World:
    """Make or read the reference and the population."""
    if plan.reference is None:
        length = plan.length or references.DEFAULT_LENGTH_BP
        reference = references.invented(length, plan.rng(_REFERENCE))
    else:
        contig = populations.first_contig(plan.sites_vcf) if plan.sites_vcf else None
        reference = references.read(plan.reference, contig, plan.length)
    if plan.sites_vcf is None:
        drift = [plan.rng(_DRIFT, site) for site in range(plan.sites)]
        population = populations.invented(reference, drift, plan.rng(_POPULATION))
    else:
        population = populations.from_vcf(plan.sites_vcf, reference, plan.sites)
    return World(plan, reference, population, draw_paralogs(reference, plan.rng(_PARALOGS)))


def simulate_patient(world: World, index: mappy.Aligner, patient: Patient, outdir: Path) -> Patient:
    """Write one patient's BAM, truth VCF and confident BED under ``outdir``/SITE."""
    rng = world.plan.rng(_PATIENT, patient.site, patient.number)
    platform, weak = world.site(patient.site)
    private = world.plan.sites_vcf is None
    genotypes = populations.draw_genotypes(world.population, patient.site, world.reference, private, rng)
    parts: list[tuple[Codes, Ints | None]] = [
        haplotype(world.reference.codes, genotypes.of(copy)) for copy in (0, 1)
    ]
    for paralog in world.paralogs:
        parts += [(copy, None) for copy in paralog.copies(world.reference, rng)]
    molecules = join(parts, world.reference.codes.size)
    fragments = shear(molecules, platform, world.plan.coverage, rng)
    reads = sequence_reads(molecules, fragments, tandem_repeats(molecules.codes), platform, weak, rng)
    stem = outdir / patient.site_name / patient.name
    align(reads, index, world.reference, ReadGroup(patient.name, platform.name), Path(f"{stem}.bam"))
    _write_truth(world.reference, genotypes, patient.name, Path(f"{stem}.truth.vcf.gz"))
    _write_text(Path(f"{stem}.confident.bed"), _confident(world))
    return Patient(patient.site, patient.number, len(genotypes.variants), fragments.start.size)


def _confident(world: World) -> str:
    edges = [_END_BP]
    for paralog in world.paralogs:
        if not paralog.confident:
            edges += [paralog.start, paralog.end]
    edges.append(world.reference.codes.size - _END_BP)
    spans = zip(edges[::2], edges[1::2], strict=True)
    return "".join(f"{world.reference.contig}\t{start}\t{end}\n" for start, end in spans if start < end)


def _write_truth(reference: Reference, genotypes: Genotypes, sample: str, path: Path) -> None:
    lines = [
        "##fileformat=VCFv4.2",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        f"##contig=<ID={reference.contig},length={reference.codes.size}>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Simulated genotype">',
        f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{sample}",
    ]
    for variant, (one, other) in zip(genotypes.variants, genotypes.carried.astype(int), strict=True):
        place = f"{reference.contig}\t{variant.position + 1}\t.\t{variant.ref}\t{variant.alt}"
        lines.append(f"{place}\t.\tPASS\t.\tGT\t{one}|{other}")
    plain = path.with_name(f".{path.name}.vcf")
    plain.write_text("\n".join(lines) + "\n")
    temporary = path.with_name(f".{path.name}.part.gz")
    pysam.tabix_compress(str(plain), str(temporary), force=True)
    plain.unlink()
    pysam.tabix_index(str(temporary), preset="vcf", force=True)
    Path(f"{temporary}.tbi").replace(f"{path}.tbi")
    temporary.replace(path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    temporary.replace(path)


_worker: tuple[World, mappy.Aligner] | None = None


def _start_worker(world: World) -> None:
    global _worker
    _worker = (world, aligner(world.reference))


def _work(patient: Patient, outdir: Path) -> Patient:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    return simulate_patient(*_worker, patient, outdir)


def simulate_cohort(plan: CohortPlan, outdir: Path, jobs: int = 1) -> Iterator[Patient]:
    """Write the whole consortium under ``outdir``; yield each patient when it is on disk, in order.

    The sheets come last, so that a tree with a samplesheet is a whole one.
    """
    world = build_world(plan)
    (outdir / "samplesheet.csv").unlink(missing_ok=True)
    patients = [Patient(site, number) for site in range(plan.sites) for number in range(plan.patients)]
    for site in range(plan.sites):
        (outdir / site_name(site)).mkdir(parents=True, exist_ok=True)
    references.write(world.reference, outdir / "reference.fasta")
    if jobs <= 1 or len(patients) == 1:
        index = aligner(world.reference)
        for patient in patients:
            yield simulate_patient(world, index, patient, outdir)
    else:
        context = multiprocessing.get_context("spawn")
        workers = min(jobs, len(patients))
        with ProcessPoolExecutor(workers, context, _start_worker, (world,)) as pool:
            yield from pool.map(_work, patients, [outdir] * len(patients))
    _write_sheets(plan, patients, outdir)


def _write_sheets(plan: CohortPlan, patients: list[Patient], outdir: Path) -> None:
    training = plan.patients - plan.held_out
    rows = []
    for patient in patients:
        stem = f"{patient.site_name}/{patient.name}"
        role = "train" if patient.number < training else "test"
        files = (f"{stem}.bam", f"{stem}.bam.bai", f"{stem}.truth.vcf.gz", f"{stem}.confident.bed")
        rows.append((patient.site_name, patient.name, patient.name, *files, role))
    # What a site declares is public and need not be exact: from 10 on, the nearest 5.
    declared = training if training < 10 else 5 * round(training / 5)
    sites = [(site_name(site), declared, 1) for site in range(plan.sites)]
    _write_text(outdir / "sites.csv", _table(("site", "declared_patients", "weight"), sites))
    _write_text(outdir / "samplesheet.csv", _table(SHEET_COLUMNS, rows))


def _table(header: tuple[str, ...], rows: Sequence[tuple[str | int, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
