#!/usr/bin/env python3
"""What two samples have in common, by kinship and by how well they were called
(`cordon.variants.same_person`).

    python benchmarks/same_person.py --sites_vcf kgp.chr20_1-2mb.phase3.sites.vcf.gz

First genomes of a hundred stretches, each inherited as one, with alleles by the frequencies of a sites VCF;
of all heterozygous alleles some are missed and some made up. Then one person's reads, simulated and called
twice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.calls.normalise import bcftools_call, normalise_variants
from cordon.console.commands import EXISTING, Facts, command, each
from cordon.simulation import cohort, population
from cordon.simulation import reference as references
from cordon.simulation.alignment import ReadGroup, align, aligner
from cordon.simulation.fragments import join, shear
from cordon.simulation.reads import sequence_reads
from cordon.simulation.sequence import tandem_repeats
from cordon.simulation.variants import haplotype
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.same_person import SnvSketch, alike, compared, read_samples
from cordon.variants.table import VARIANTS, write_batches

STRETCHES, STRETCH = 100, 10_000_000
Genome = NDArray[np.bool_]  # [stretches, copies, SNVs]


@dataclass(frozen=True)
class Calls:
    """How a genome is called: shares of heterozygous alleles missed and taken for homozygous, and false ones.

    ``artefacts`` are false ones at the same places in everybody.
    """

    missed: float = 0.03
    homozygous: float = 0.01
    false: float = 0.03
    artefacts: float = 0.0


GOOD, POOR, SHARED = Calls(), Calls(0.12, 0.04, 0.06), Calls(artefacts=0.25)
ROW = "{samples}: {least:.3f} to {most:.3f} in common ({pairs} pairs)"


def frequencies(path: Path, population: str) -> NDArray[np.float64]:
    """INFO/``population`` of the SNVs that it has."""
    found = []
    with pysam.VariantFile(str(path)) as file:
        for record in file:
            if record.alts and len(record.alts) == 1 and len(record.ref or "") == len(record.alts[0]) == 1:
                found.append(float(np.ravel(record.info.get(population, 0.0))[0]))
    return np.array([frequency for frequency in found if frequency > 0])


def person(source: np.random.Generator, frequency: NDArray[np.float64]) -> Genome:
    return source.random((STRETCHES, 2, len(frequency))) < frequency


def child(source: np.random.Generator, mother: Genome, father: Genome) -> Genome:
    stretch = np.arange(STRETCHES)
    copies = [parent[stretch, source.integers(2, size=STRETCHES)] for parent in (mother, father)]
    return np.stack(copies, axis=1)


def called(source: np.random.Generator, genome: Genome, calls: Calls) -> SnvSketch:
    """The sample that calls make of a genome."""
    copies = genome.sum(axis=1)
    lost = source.random(copies.shape) < calls.missed + calls.homozygous
    gained = source.random(copies.shape) < calls.homozygous
    stretch, snv = np.nonzero(((copies == 1) & ~lost) | ((copies == 2) & gained))
    count, shared = len(stretch), int(calls.artefacts * len(stretch))
    false = source.integers(1_000_000, 5_000_000, source.poisson(calls.false * count))
    kept = np.flatnonzero(source.random(shared) < 0.9)
    places = np.concatenate([snv, false, 5_000_000 + kept // STRETCHES])
    stretches = np.concatenate([stretch, source.integers(STRETCHES, size=len(false)), kept % STRETCHES])
    return sample("sample", np.unique(STRETCH * stretches + places))


def sample(name: str, alleles: NDArray[np.int64]) -> SnvSketch:
    """A sample of numbered alleles: a bijection spreads them, as hashes are."""
    hashes = alleles.astype(np.uint64)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return SnvSketch.of(name, "site", name, hashes ^ (hashes >> np.uint64(33)), alleles // STRETCH)


def by_kinship(source: np.random.Generator, path: Path, families: int) -> Iterator[dict[str, object]]:
    for where in ("EUR_AF", "AFR_AF", "EAS_AF"):
        frequency = frequencies(path, where)
        found: dict[str, list[float]] = {}
        for _ in range(families):
            mother, father, stranger = (person(source, frequency) for _ in range(3))
            one, other = child(source, mother, father), child(source, mother, father)
            for kin, first, second, calls in (
                ("unrelated", mother, stranger, GOOD),
                ("unrelated, shared artefacts", mother, stranger, SHARED),
                ("parent and child", mother, one, GOOD), ("siblings", one, other, GOOD),
                ("siblings, shared artefacts", one, other, SHARED), ("one person", one, one, GOOD),
                ("one person, poor calls", one, one, POOR),
            ):  # fmt: skip
                share, _ = compared([called(source, genome, calls) for genome in (first, second)])
                found.setdefault(kin, []).append(float(share[0, 1]))
        for kin, shares in found.items():
            yield {"samples": f"{where[:3]}, {kin}", **ends(shares)}


def ends(shares: list[float]) -> dict[str, float]:
    return {"least": min(shares), "most": max(shares), "pairs": len(shares)}


def by_reads(source: np.random.Generator, folder: Path, coverage: float) -> dict[str, object]:
    """What two people's reads of so many fold, each sequenced and called twice, have in common."""
    world = cohort.build_world(cohort.CohortPlan(1, 2, 0, 5, length=200_000))
    fasta, shares = folder / "reference.fasta", []
    references.write(world.reference, fasta)
    pysam.faidx(str(fasta))
    platform, weak = world.site(0)
    for _ in range(2):
        genotypes = population.draw_genotypes(world.population, 0, world.reference, True, source)
        tables = []
        for name in ("a", "b"):
            parts = [haplotype(world.reference.codes, genotypes.of(copy)) for copy in (0, 1)]
            parts += [
                (copy, None) for paralog in world.paralogs for copy in paralog.copies(world.reference, source)
            ]
            molecules = join(parts, world.reference.codes.size)
            fragments = shear(molecules, platform, coverage, source)
            reads = sequence_reads(
                molecules, fragments, tandem_repeats(molecules.codes), platform, weak, source
            )
            bam, calls, normal = (folder / f"{name}{end}" for end in (".bam", ".vcf.gz", ".normal.vcf.gz"))
            align(reads, aligner(world.reference), world.reference, ReadGroup(name, platform.name), bam)
            bcftools_call(bam=bam, sample=name, reference=fasta, output=calls)
            normalise_variants(vcf=calls, reference=fasta, sample=name, output=normal)
            rows = encode(
                identity=SampleIdentity("s", name, name), sample=name, reference=fasta,
                calls={"bcftools": normal}, bam=bam,
            )  # fmt: skip
            tables.append(folder / f"{name}.parquet")
            write_batches(tables[-1], VARIANTS, rows)
        share, _ = compared(list(read_samples(tables)))
        shares.append(float(share[0, 1]))
    return {"samples": f"reads of one person, {coverage:g}x", **ends(shares)}


def seconds(source: np.random.Generator, patients: int) -> float:
    """How long a site of so many unrelated patients takes to be compared."""
    frequency = source.beta(0.3, 2.0, size=60_000)
    heterozygous = 2.0 * frequency * (1.0 - frequency)
    samples = [
        sample(str(number), np.flatnonzero(source.random(len(frequency)) < heterozygous))
        for number in range(patients)
    ]
    began = time.monotonic()
    assert not alike(samples)
    return time.monotonic() - began


@command()
@click.option("--sites_vcf", required=True, type=EXISTING, help="Sites with EUR_AF, AFR_AF and EAS_AF.")
@click.option("--families", default=20, show_default=True, help="In each population.")
@click.option("--patients", default=1000, show_default=True, help="Of the site that is timed.")
def main(sites_vcf: str, families: int, patients: int) -> Facts:
    """Measure what samples have in common."""
    source = np.random.default_rng(0)
    rows = list(by_kinship(source, Path(sites_vcf), families))
    with tempfile.TemporaryDirectory() as folder:
        rows += [by_reads(source, Path(folder), coverage) for coverage in (30.0, 20.0, 12.0, 8.0)]
    took = seconds(source, patients)
    return each("shares", ROW, rows) + Facts({"seconds": took}, [f"{patients} patients: {took:.1f} s"])


if __name__ == "__main__":
    main()
