"""Tests of cordon.variants.same_person, on people whose kinship is known."""

import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest

from conftest import table_row
from cordon.calls.normalise import bcftools_call, normalise_variants
from cordon.simulation import cohort, population
from cordon.simulation import reference as references
from cordon.simulation.alignment import ReadGroup, align, aligner
from cordon.simulation.fragments import join, shear
from cordon.simulation.reads import sequence_reads
from cordon.simulation.sequence import tandem_repeats
from cordon.simulation.variants import haplotype
from cordon.training.units import Units
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.same_person import (
    AS_ONE,
    LIKE_ONE,
    SnvSketch,
    alike,
    compared,
    one_id,
    read_samples,
    same_people,
)
from cordon.variants.table import LABELLED, VARIANTS, write_batches, write_table

# Stretches that are inherited as one, each in a window of its own, and SNVs in each.
STRETCHES, SNVS = 80, 30
SOURCE = np.random.default_rng(7)
FREQUENCIES = SOURCE.beta(0.5, 1.5, size=(STRETCHES, SNVS))


@pytest.fixture(autouse=True)
def from_a_seed(monkeypatch):
    """The same people in every run of a test."""
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", np.random.default_rng(8))


def person():
    """Alleles [stretches, copies, SNVs] of somebody unrelated to everybody else."""
    return SOURCE.random((STRETCHES, 2, SNVS)) < FREQUENCIES[:, None]


def child(mother, father):
    stretch = np.arange(STRETCHES)
    copies = [parent[stretch, SOURCE.integers(2, size=STRETCHES)] for parent in (mother, father)]
    return np.stack(copies, axis=1)


def table(path, genome, patient, *, missed=0.03, site="s", stretches=STRETCHES, **cells):
    """Write what a caller finds of a genome: some alleles are missed, and some are made up."""
    rows = []
    copies = genome.sum(axis=1)
    for stretch, snv in np.argwhere((copies > 0) | (SOURCE.random(copies.shape) < missed / 3)):
        if stretch < stretches and SOURCE.random() >= missed:
            called = {"position": 10_000_000 * int(stretch) + int(snv), "bcftools_pass": True, "label": 1}
            called["zygosity"] = "homozygous" if copies[stretch, snv] == 2 else "heterozygous"
            rows.append(table_row(site=site, patient=patient, sample=path.stem, **called | cells))
    write_table(pa.Table.from_pylist(rows, schema=LABELLED), path)
    return path


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Tables of parents, two children, a stranger, and the first child again as another patient."""
    folder = tmp_path_factory.mktemp("family")
    mother, father = person(), person()
    one, other = child(mother, father), child(mother, father)
    people = {
        "mother": mother,
        "father": father,
        "one": one,
        "other": other,
        "stranger": person(),
        "again": one,
    }
    return {name: table(folder / f"{name}.parquet", genome, f"p-{name}") for name, genome in people.items()}


def shares(paths):
    return compared(list(read_samples(paths)))[0][0, 1]


def test_the_share_in_common_is_what_kinship_makes_it(family):
    assert 0.25 < shares([family["mother"], family["stranger"]]) < 0.5
    assert 0.40 < shares([family["mother"], family["one"]]) < 0.56
    assert 0.45 < shares([family["one"], family["other"]]) < 0.65
    assert 0.9 < shares([family["one"], family["again"]]) < 1.0


def test_of_a_family_only_one_person_under_two_ids_is_told_by_the_names_of_tables(family):
    said = []
    assert same_people(list(family.values()), merge=False, say=said.append) == {}
    (told,) = said
    assert told.startswith(
        "one.parquet and again.parquet seem to be of one person under two patients' ids: 9"
    )
    assert "set --same_person merge; identical twins are two people" in told
    assert "p-one" not in told


def test_merged_they_are_one_unit_with_the_rows_of_both(family):
    paths = list(family.values())
    said = []
    ids = same_people(paths, merge=True, say=said.append)
    assert ids == {"p-again": "p-again", "p-one": "p-again"}
    assert said[0].endswith("If they are two people, as identical twins are, set --same_person warn.")
    apart = Units.read(paths, unit="patient")
    merged = Units.read(paths, unit="patient", one_id=ids)
    assert (len(apart), len(merged)) == (6, 5)
    assert len(merged.labels) == len(apart.labels)
    sizes = dict(zip(sorted(f"p-{name}" for name in family), np.diff(apart.offsets), strict=True))
    assert np.diff(merged.offsets)[0] == sizes["p-again"] + sizes["p-one"]
    # Sorted by id, so that the merged unit is the first.
    assert np.diff(merged.offsets)[1:].tolist() == [
        sizes[name] for name in ("p-father", "p-mother", "p-other", "p-stranger")
    ]


def test_two_samples_of_one_patient_are_as_they_should_be(tmp_path):
    genome = person()
    paths = [table(tmp_path / f"{name}.parquet", genome, "p1") for name in ("a", "b")]
    said = []
    assert same_people(paths, merge=True, say=said.append) == {}
    assert said == []


def test_the_same_person_at_another_site_is_no_matter_of_this_one(tmp_path):
    genome = person()
    paths = [table(tmp_path / f"{site}.parquet", genome, f"p-{site}", site=site) for site in ("s", "t")]
    said = []
    assert same_people(paths, merge=True, say=said.append) == {}
    assert said == []


def test_where_little_of_the_genome_is_compared_it_is_said_and_never_merged(tmp_path):
    """Siblings may have all of a few genes in common."""
    genome = person()
    paths = [table(tmp_path / f"{name}.parquet", genome, name, stretches=19) for name in ("a", "b")]
    said = []
    assert same_people(paths, merge=True, say=said.append) == {}
    assert "They are not merged: that takes 80 %, in 20 stretches of 10 Mb." in said[0]


def test_what_is_less_alike_than_one_person_should_be_is_said_and_never_merged(tmp_path):
    genome = person()
    paths = [table(tmp_path / f"{name}.parquet", genome, name, missed=0.17) for name in ("a", "b")]
    assert LIKE_ONE < shares(paths) < AS_ONE
    said = []
    assert same_people(paths, merge=True, say=said.append) == {}
    assert "They are not merged" in said[0]


def test_too_few_alleles_and_those_that_no_filter_passes_show_nothing(tmp_path):
    genome = person()
    few = [table(tmp_path / f"{name}.parquet", genome, name, stretches=5) for name in ("a", "b")]
    failed = [table(tmp_path / f"{name}.parquet", genome, name, bcftools_pass=False) for name in ("c", "d")]
    for paths in (few, failed):
        said = []
        assert same_people(paths, merge=True, say=said.append) == {}
        assert said == []


def sample(name, numbers):
    """One that carries alleles of these numbers, spread over many windows."""
    hashes = np.asarray(numbers, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return SnvSketch.of(name, "s", name, hashes, np.asarray(numbers) // 10)


def test_an_exome_is_compared_with_a_genome_on_what_it_covers():
    genome = np.arange(500_000)
    exome, other = genome[::20], genome[::20] + 10_000_000
    (found,) = alike([sample("genome", genome), sample("exome", exome), sample("other", other)])
    assert (found.first.table, found.second.table, found.share) == ("genome", "exome", 1.0)
    assert 650 < found.alleles < 1000
    assert found.sure


def test_chains_of_ids_are_one(tmp_path):
    genome = np.arange(5000)
    found = alike([sample(name, genome) for name in ("c", "b", "a")] + [sample("d", genome + 9_000)])
    assert len(found) == 3
    assert one_id(found) == {"a": "a", "b": "a", "c": "a"}
    assert one_id([replace(pair, share=AS_ONE - 0.01) for pair in found]) == {}


def test_a_table_in_parts_is_as_one_in_a_piece(family, tmp_path):
    held = pq.read_table(family["one"])
    write_batches(tmp_path / "one.parquet", held.schema, [held[:500], held[500:]])
    (whole,), (parts,) = (list(read_samples([path])) for path in (family["one"], tmp_path / "one.parquet"))
    assert np.array_equal(whole.hashes, parts.hashes)
    assert (whole.patient, whole.limit) == (parts.patient, parts.limit)


@pytest.mark.stress
def test_three_hundred_patients_are_compared_in_seconds():
    alleles = np.flatnonzero(SOURCE.random(60_000) < 0.5)
    people = [sample(str(n), alleles[SOURCE.random(len(alleles)) < 0.4]) for n in range(300)]
    began = time.monotonic()
    assert alike(people) == []
    assert time.monotonic() - began < 60


def sequenced(world, number, name, source, bam):
    """Reads of a person of the world, with errors of their own each time."""
    genotypes = population.draw_genotypes(
        world.population, 0, world.reference, True, world.plan.rng(9, number)
    )
    platform, weak = world.site(0)
    parts = [haplotype(world.reference.codes, genotypes.of(copy)) for copy in (0, 1)]
    molecules = join(parts, world.reference.codes.size)
    fragments = shear(molecules, platform, world.plan.coverage, source)
    reads = sequence_reads(molecules, fragments, tandem_repeats(molecules.codes), platform, weak, source)
    align(reads, aligner(world.reference), world.reference, ReadGroup(name, platform.name), bam)


@pytest.mark.stress
def test_one_person_sequenced_and_called_twice_is_found(tmp_path):
    """Reads with errors at 20x, bcftools' calls; of two people the second one once."""
    plan = cohort.CohortPlan(1, 2, 0, 5, length=110_000)
    world = cohort.build_world(plan)
    reference = tmp_path / "reference.fasta"
    references.write(world.reference, reference)
    pysam.faidx(str(reference))
    paths = []
    for name, number, seed in (("a", 0, 1), ("b", 0, 2), ("c", 1, 3)):
        bam, calls, normal = (tmp_path / f"{name}{end}" for end in (".bam", ".vcf.gz", ".n.vcf.gz"))
        sequenced(world, number, name, np.random.default_rng(seed), bam)
        bcftools_call(bam=bam, sample=name, reference=reference, output=calls)
        normalise_variants(vcf=calls, reference=reference, sample=name, output=normal)
        rows = encode(identity=SampleIdentity("s", f"p{name}", name), sample=name, reference=reference,
                      calls={"bcftools": normal}, bam=bam)  # fmt: skip
        paths.append(tmp_path / f"{name}.parquet")
        write_batches(paths[-1], VARIANTS, rows)
    said = []
    same_people(paths, merge=False, say=said.append)
    (told,) = said
    assert told.startswith("a.parquet and b.parquet seem to be of one person")
