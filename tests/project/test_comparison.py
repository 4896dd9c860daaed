"""The benchmarks behind docs/comparison.md, cut short: that what they compare is as the page says."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pysam
import pytest
from click.testing import CliRunner
from dp_accounting.pld import privacy_loss_distribution
from scipy.stats import binom

import by_hand
import by_hand_protocol
import gatk_filters
from conftest import SHARED, table_row
from cordon.privacy.accountants import epsilon_pld
from cordon.privacy.events import Event
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table

pytestmark = pytest.mark.stress

HEADER = [
    f'##INFO=<ID={name},Number=1,Type=Float,Description="">' for name in (*gatk_filters.ANNOTATIONS, "CORDON")
] + ['##FILTER=<ID=CORDONLowScore,Description="">']
GOOD = "QD=20;FS=1;MQ=60;SOR=1;MQRankSum=0;ReadPosRankSum=0"


@pytest.fixture
def tables(tmp_path):
    """Three sites of five patients with 40 rows, whose label follows the first feature."""
    source, paths = random.Random(1), []
    for site in ("north", "south", "west"):
        for patient in range(5):
            rows = []
            for position in range(1, 41):
                label = int(source.random() < 0.7)
                values = {FEATURES[0]: label + source.gauss(0, 0.5)}
                who = {"site": site, "patient": f"{site}{patient}", "sample": f"{site}{patient}"}
                rows.append(table_row(**who, position=position, label=label, **values))
            paths.append(tmp_path / f"{site}-p{patient}.labelled.parquet")
            write_table(pa.Table.from_pylist(rows, schema=LABELLED), paths[-1])
    return [str(path) for path in paths]


def run(command, *words):
    result = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_by_hand_reports_less_than_it_spends_and_a_patient_spends_far_more(tables):
    found = run(by_hand.main, "--held_out", "1", "--rounds", "3", "--repeats", "1", *tables)
    message, rows, covering, patients, flowers, cordon = found
    assert message["reported"] <= 8 < 0.9 * message["spent"]
    for way in (rows, patients):  # Opacus calibrates to 0.01, by other orders than dp-accounting's
        assert way["spent"] == pytest.approx(8, abs=0.05)
    for way in (cordon, flowers):
        assert 7.9 < way["spent"] <= 8
    for way in (message, rows, covering, patients):
        assert way["reported"] < 0.95 * way["spent"]
    assert rows["patient"] > 50
    assert covering["patient"] == pytest.approx(8, rel=1e-3)
    assert covering["noise"] > 5 * rows["noise"]
    assert (patients["unit"], cordon["unit"], flowers["unit"]) == ("patient", "patient", "site")
    assert cordon["reported"] == cordon["spent"]
    assert flowers["reported"] == pytest.approx(flowers["spent"], rel=1e-3)
    for way in found:
        assert way["delta"] == 1e-5
        assert "Gaussian" in way["mechanism"]
        assert way["adjacency"] == "add or remove one unit"
        assert 0 <= way["auroc"][0] <= 1
    assert min(message["auroc"][0], rows["auroc"][0]) > 0.9


@pytest.mark.parametrize(("noise", "rate", "steps", "rows"), [(30, 0.25, 8, 20), (80, 1 / 23, 230, 250)])
def test_a_patients_epsilon_is_that_of_the_mixture_of_gaussians_and_never_above(noise, rate, steps, rows):
    chance = binom.pmf(np.arange(rows + 1), rows, rate)
    drawn = np.flatnonzero(chance > 1e-15)
    mixture = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        noise, drawn.astype(float).tolist(), (chance[drawn] / chance[drawn].sum()).tolist(),
        value_discretization_interval=1e-3,
    )  # fmt: skip
    exact = mixture.self_compose(steps).get_epsilon_for_delta(by_hand.DELTA)
    found = by_hand.patient_epsilon(noise, rate, steps, rows)
    assert 0.99 * exact < found <= exact


def test_a_patient_of_one_row_spends_no_more_than_a_row():
    found = by_hand.patient_epsilon(1.0, 0.5, 100, 1)
    assert 0 < found <= epsilon_pld([Event(1.0, 0.5, 100)], by_hand.DELTA)


def test_what_leaves_is_forgotten_and_believed_by_hand_and_not_by_cordon(tables):
    found = run(by_hand_protocol.main, "--held_out", "1", "--rounds", "2", *tables)
    differing, cordon = found["egress"]["by_hand"], found["egress"]["cordon"]
    assert set(differing) == {"num-examples", "loss", "epsilon"}
    assert differing["num-examples"] == [160, 120]
    assert cordon["passed"]
    assert not {"num-examples", "loss"} & {name.split(".")[-1] for name in cordon["fields"]}
    first, second = found["restart"]["by_hand"]["reported"]
    assert first == pytest.approx(second)
    assert found["restart"]["by_hand"]["spent"] > 8 > first
    before, after = found["restart"]["cordon"]
    assert before["answers"] == ["trained"] * 2
    assert after["answers"] == ["stopped"] * 2
    assert before["ledger"] == after["ledger"] <= 8
    honest, scaled, nan, claim = found["hostile"]
    assert honest["cordon"]["decision"] == "accepted"
    assert scaled["by_hand"]["largest"] > 10 * honest["by_hand"]["largest"]
    assert nan["by_hand"]["largest"] is None
    assert {row["cordon"]["decision"] for row in (scaled, nan)} == {"quarantined"}
    assert claim["by_hand"]["from_first_site"] < 1e-6 < honest["by_hand"]["from_first_site"]


def test_each_hard_filter_is_gatks_for_its_kind_of_variant(lab):
    bad = ["QD=1.9", "FS=60.1", "MQ=39.9", "SOR=3.1", "MQRankSum=-12.6", "ReadPosRankSum=-8.1"]
    worse = ["QD=1.9", "FS=200.1", "SOR=10.1", "ReadPosRankSum=-20.1"]
    chosen = [("A", "C", text) for text in ["", *bad]] + [("A", "AC", text) for text in ["", *bad, *worse]]
    records = []
    for place, (ref, alt, text) in enumerate(chosen):
        own = dict(part.split("=") for part in GOOD.split(";")) | dict(p.split("=") for p in [text] if p)
        info = ";".join(f"{name}={value}" for name, value in own.items())
        records.append(f"chr1 {10 * place + 10} {ref} {alt} 50 . {info} GT 0/1")
    records.append("chr1 900 A C 50 . QD=20 GT 0/1")  # what is not annotated is no reason
    vcf = lab.vcf("calls.vcf.gz", records, header=HEADER)
    filtered = gatk_filters.hard_filtered(vcf, lab.folder / "filtered.vcf.gz")
    with pysam.VariantFile(str(filtered)) as file:
        found = [set(record.filter) for record in file]
    snps, indels = found[:7], found[7:18]
    assert snps == [{"PASS"}, *({f"snp{number}"} for number in range(6))]
    # An indel bears FS, SOR and ReadPosRankSum that an SNP does not; MQ and MQRankSum are not looked at.
    assert indels[:7] == [{"PASS"}, {"indel0"}, *([{"PASS"}] * 5)]
    assert indels[7:] == [{f"indel{number}"} for number in range(4)]
    assert found[18] == {"PASS"}


def test_a_runs_samples_are_compared_by_allele(lab):
    calls, scored, rows = [], [], []
    for place, (label, quality, score) in enumerate([(1, 20, 3), (1, 1, 2), (0, 20, -3), (0, 1, -1)]):
        position = 10 * place + 10
        calls.append(f"chr1 {position} A C 50 . {GOOD.replace('QD=20', f'QD={quality}')} GT 0/1")
        verdict = "PASS" if score > -2 else "CORDONLowScore"
        scored.append(f"chr1 {position} A C 50 {verdict} CORDON={score} GT 0/1")
        called = {"callers": "bcftools;haplotypecaller", "contig": "chr1", "position": position}
        rows.append(table_row(**called, label=label))
    for folder in ("calls", "scored", "variants"):
        (lab.folder / folder).mkdir()
    lab.vcf("calls/p1.haplotypecaller.vcf.gz", calls, header=HEADER)
    lab.vcf("scored/p1.scored.vcf.gz", scored, header=HEADER)
    write_table(pa.Table.from_pylist(rows, schema=LABELLED), lab.folder / "variants/p1.labelled.parquet")
    kept = {
        r["filter"]: (r["real_kept"], r["false_kept"]) for r in gatk_filters.demo_rows(lab.folder, ["p1"])
    }
    assert kept == {
        "none": (2, 2), "GATK hard filters": (1, 1), "Cordon, PASS": (2, 1),
        "Cordon, as sensitive as the hard filters": (1, 0), "Cordon, 99% sensitive": (2, 0),
    }  # fmt: skip


def test_a_threshold_loses_no_more_real_alleles_than_it_may():
    score, real = np.array([1.0, 2.0, 3.0, 2.0, 0.0]), np.array([True, True, True, False, False])
    assert gatk_filters.keeping(score, real, 0).tolist() == [True, True, True, True, False]
    assert gatk_filters.keeping(score, real, 1).tolist() == [False, True, True, True, False]
    assert gatk_filters.keeping(score, real, 2).tolist() == [False, False, True, False, False]


def test_real_calls_are_filtered_and_scored_side_by_side():
    folder = SHARED / "na12878_chr1_calls"
    if not folder.exists():
        pytest.skip(f"real data are not on this machine ({folder})")
    words = ["--truth", str(folder / "NA12878.subset.vcf.gz"), "--sample", "NA12878"]
    short = ["--set", "rounds=1", "--set", "local_steps=1"]
    found = run(gatk_filters.calls, str(folder / "haplotype_caller.vcf.gz"), *words, *short)
    named = {row["filter"]: row for row in found}
    assert (named["none"]["real_kept"], named["none"]["false_kept"]) == (8996, 509)
    hard = named["GATK hard filters"]
    assert hard["real_kept"] < 8996
    assert hard["false_kept"] < 509
    for name in ("QD", "Cordon, from nothing"):
        assert named[f"{name}, as sensitive as the hard filters"]["real_kept"] >= hard["real_kept"]
        assert named[f"{name}, 99% sensitive"]["real_kept"] >= 0.99 * 8996
    beside = {"epsilon", "unit", "delta", "mechanism", "adjacency"}
    assert all(beside <= set(row) for row in found if row["filter"].startswith("Cordon"))
