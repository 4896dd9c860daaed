"""Tests of cordon.scoring.score, cordon.scoring.calibrate and cordon.calls.headers."""

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from pysam import bcftools

from conftest import ROOT, Read, table_row
from cordon.calls.headers import merged_header
from cordon.errors import InputProblems, UserError
from cordon.model.architectures import PRIOR_LOG_ODDS
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.guarantee import ADJACENCY
from cordon.scoring.calibrate import calibrate
from cordon.scoring.calibration import Calibration, Curve, for_both, uncalibrated
from cordon.scoring.score import Sample, Scoring, read_samples, score_sample
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, VARIANTS, read_table, write_table
from scoring_lab import snvs


class Fake:
    """A model whose score is one feature."""

    architecture = "mlp"
    hash = "abc123"
    features = FEATURES
    privacy = {  # noqa: RUF012
        "unit": "patient",
        "epsilon": 8.0,
        "scope": "all runs in the ledger",
        "delta": 1e-5,
        "mechanism": 'Gaussian, called "DP-SGD"',
        "adjacency": "add or remove",
    }

    def score(self, features):
        return features[:, FEATURES.index("f_depth")].astype(np.float64)


HC = [
    '##INFO=<ID=MQ,Number=1,Type=Float,Description="x">',
    '##INFO=<ID=DP,Number=1,Type=Integer,Description="x">',
    '##FILTER=<ID=LowQual,Description="x">',
    "##source=HaplotypeCaller",
]
BT = [
    '##INFO=<ID=MQ,Number=1,Type=Integer,Description="y">',
    '##INFO=<ID=INDEL,Number=0,Type=Flag,Description="y">',
]


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


@pytest.fixture
def called(lab):
    """Three alleles: by both, by haplotypecaller alone, by bcftools alone (on chr2)."""
    one, two = (lab.sequences["chr1"][position - 1] for position in (100, 200))
    three = lab.sequences["chr2"][299]
    hc = [
        f"chr1 100 {one} {other(one)} 50.5 . DP=9;MQ=59.5 GT:DP 0/1:9",
        f"chr1 200 {two} {other(two)} 10 LowQual DP=3 GT 1/1",
    ]
    bt = [
        f"chr1 100 {one} {other(one)} 40 PASS MQ=60 GT 0/1",
        f"chr2 300 {three} {other(three)} 7 . INDEL;MQ=60 GT 0|1",
    ]
    hc_header = [*HC, '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">']
    calls = {
        "bcftools": lab.vcf("bt.vcf.gz", bt, header=BT),
        "haplotypecaller": lab.vcf("hc.vcf.gz", hc, header=hc_header),
    }
    alleles = [
        ("chr1", 100, one, "bcftools;haplotypecaller"),
        ("chr1", 200, two, "haplotypecaller"),
        ("chr2", 300, three, "bcftools"),
    ]
    rows = []
    for (contig, position, ref, callers), depth in zip(alleles, (2.0, -1.0, 0.25), strict=True):
        changes = dict.fromkeys(FEATURES, 0.0) | {"sample": "s1", "callers": callers, "f_depth": depth}
        place = {"contig": contig, "position": position, "ref": ref, "alt": other(ref)}
        rows.append(table_row(**changes, **place))
    return calls, pa.Table.from_pylist(rows, schema=VARIANTS)


def write(lab, called, calibration, truth_sensitivity="0.9", protected=()):
    """Score the alleles; returns how many pass."""
    given, table = called
    write_table(table, lab.folder / "v.parquet")
    one = Sample("s1", lab.folder / "v.parquet", given)
    scoring = Scoring(Fake(), calibration, truth_sensitivity, protected)
    return score_sample(one, scoring, reference=lab.reference, outdir=lab.folder)[0]


def test_every_candidate_is_a_record_with_its_own_fields_kept(lab, called):
    assert write(lab, called, uncalibrated("none", "a")) == 3
    body = bcftools.view("-H", str(lab.folder / "s1.scored.vcf.gz")).splitlines()
    one, two = (lab.sequences["chr1"][position - 1] for position in (100, 200))
    three = lab.sequences["chr2"][299]
    assert [line.split("\t") for line in body] == [
        ["chr1", "100", ".", one, other(one), "50.5", "PASS",
         "DP=9;MQ=59.5;CORDON=2;CORDON_CALLERS=bcftools,haplotypecaller;CORDON_FILTERS=bcftools:PASS",
         "GT:DP", "0/1:9"],
        ["chr1", "200", ".", two, other(two), "10", "PASS",
         "DP=3;CORDON=-1;CORDON_CALLERS=haplotypecaller;CORDON_FILTERS=haplotypecaller:LowQual", "GT", "1/1"],
        ["chr2", "300", ".", three, other(three), "7", "PASS",
         "INDEL;MQ=60;CORDON=0.25;CORDON_CALLERS=bcftools", "GT", "0|1"],
    ]  # fmt: skip


def test_the_threshold_of_the_sensitivity_asked_for_filters(lab, called):
    calibration = calibrate(snvs(np.array([2.0, -1.0, 0.25, -3.0]), np.array([1, 0, 0, 0])), "a")
    assert write(lab, called, calibration) == 1
    with pysam.VariantFile(str(lab.folder / "s1.scored.vcf.gz")) as file:
        assert [list(record.filter) for record in file] == [["PASS"], ["CORDONLowScore"], ["CORDONLowScore"]]
    with pytest.raises(UserError, match=r"truth sensitivity of 0\.5. Choose one of 0\.9"):
        write(lab, called, calibration, truth_sensitivity="0.5")


def test_a_site_where_a_caller_tells_better_is_filtered_by_the_caller_and_the_file_says_so(lab, called):
    calls, table = called
    rows = table.to_pylist()
    for row, qual in zip(rows, (50.5, 10.0, None), strict=True):
        row["haplotypecaller_qual"] = qual
    at = {kind: {"0.9": math.log(11.5 + 2)} for kind in ("SNV", "indel")}
    line, removed = Curve.line(1.0, 0.0), {"model": 0.4, "haplotypecaller QUAL": 0.62}
    curves = {"SNV": line, "indel": line}
    stands = Calibration(
        curves, at, "site", "a", rows=999, caller_score="haplotypecaller QUAL", removed=removed
    )
    calibration = Calibration(curves, at, "site", "a", rows=999, instead=stands)
    assert write(lab, (calls, pa.Table.from_pylist(rows, schema=VARIANTS)), calibration) == 1
    with pysam.VariantFile(str(lab.folder / "s1.scored.vcf.gz")) as file:
        header = str(file.header)
        found = [(*record.filter, round(record.info["CORDON"], 4)) for record in file]
    expected = [math.log(50.5 + 3), math.log(10 + 3), math.log(1)]
    assert found == [
        (name, pytest.approx(odds, abs=1e-3))
        for name, odds in zip(("PASS", "CORDONLowScore", "CORDONLowScore"), expected, strict=True)
    ]
    assert 'InsteadOfModel="haplotypecaller QUAL"' in header
    assert (
        "by haplotypecaller QUAL in place of the federated model: where 0.99 of the real alleles are kept, "
        "haplotypecaller QUAL removes 62 % of the false ones at site a, and the model 40 %, of its labelled "
        "samples" in header
    )


def test_an_allele_that_its_stratum_would_keep_is_for_review_or_passes_where_that_is_protected(
    lab, called, command
):
    """The second allele scores -1, below its kind's threshold and above that of low balance."""
    calls, table = called
    rows = table.to_pylist()
    for row, fraction in zip(rows, (0.0, -1.5, -1.5), strict=True):
        row |= {"zygosity": "heterozygous", "f_alt_fraction": fraction}
    at = {"SNV": {"0.9": 1.0}, "indel": {"0.9": 3.0}, "low_balance": {"0.9": -1.0}}
    line, more = Curve.line(1.0, 0.0), {"low_balance": {"0.9": 7}}
    calibration = Calibration({"SNV": line, "indel": line}, at, "site", "a", rows=9, let_through=more)
    given = calls, pa.Table.from_pylist(rows, schema=VARIANTS)

    def filters():
        with pysam.VariantFile(str(lab.folder / "s1.scored.vcf.gz")) as file:
            header = {name: file.header.filters[name].description for name in file.header.filters}
            return [list(record.filter) for record in file], header

    assert write(lab, given, calibration) == 1
    found, header = filters()
    assert found == [["PASS"], ["CORDONReview"], ["CORDONReview"]]
    assert header["CORDONReview"].endswith(
        "0.9 of the real alleles of a stratum lie that the allele is in: low_balance from -1"
    )
    assert "CORDON below 1 (SNVs) or 3 (indels), the thresholds that keep 0.9" in header["CORDONLowScore"]
    table = pq.read_table(lab.folder / "s1.scored.parquet")
    assert (table["cordon_pass"].to_pylist(), table["cordon_review"].to_pylist()) == (
        [True, False, False], [False, True, True],
    )  # fmt: skip
    assert write(lab, given, calibration, protected=("low_balance",)) == 3
    found, header = filters()
    assert found == [["PASS"]] * 3
    assert header["CORDONLowScore"].endswith("; alleles pass by these strata, too: low_balance")


def test_the_header_says_what_the_scores_are_and_cost(lab, called):
    write(lab, called, uncalibrated("none", "a"))
    header = bcftools.view("-h", str(lab.folder / "s1.scored.vcf.gz"))
    (line,) = [line for line in header.splitlines() if line.startswith("##CORDON=")]
    for part in (
        'ModelHash="abc123"',
        "Epsilon=8.0",
        'Scope="all runs in the ledger"',
        "Delta=1e-05",
        'Unit="patient"',
        'Adjacency="add or remove"',
        r'Mechanism="Gaussian, called \"DP-SGD\""',
        'CalibrationMode="none"',
        """Calibration="none (the model's own scores)",""",
        'CalibrationSnv="a 1, b 1, c 0"',
        'ThresholdSnv="-2.19722",ThresholdIndel="-2.19722"',
    ):
        assert part in line
    assert "##source=HaplotypeCaller" in header


def words_of(lab, called, calibration):
    """The line of the model, and the descriptions of the filter and the score, of a header."""
    write(lab, called, calibration)
    with pysam.VariantFile(str(lab.folder / "s1.scored.vcf.gz")) as file:
        (model,) = [record for record in file.header.records if record.key == "CORDON"]
        filtered = file.header.filters["CORDONLowScore"].description
        return dict(model), filtered, file.header.info["CORDON"].description


def test_exact_figures_are_told_to_be_not_private(lab, called):
    fitted = calibrate(snvs(np.array([2.0, -1.0, 0.25, -3.0]), np.array([1, 0, 0, 0])), "a")
    model, filtered, score = words_of(lab, called, fitted)
    said = "exact figures of site a's labelled samples, not private"
    assert (model["CalibrationMode"], model["Calibration"].strip('"')) == ('"site"', said)
    assert model["TruthSensitivity"] == '"0.9"'
    assert filtered == (
        f"CORDON below {fitted.threshold('0.9'):.6g}, the threshold that keeps 0.9 of the real alleles, "
        f"among those of site a's labelled samples (calibration: {said})"
    )
    assert score.startswith("Calibrated natural-log odds")


@pytest.mark.parametrize("reason", ["", "site a has no labelled allele"])
def test_scores_that_are_not_calibrated_promise_nothing(lab, called, reason):
    model, filtered, score = words_of(lab, called, uncalibrated("site" if reason else "none", "a", reason))
    assert "TruthSensitivity" not in model
    assert filtered == (
        "CORDON below -2.19722, odds of 0.1 to 0.9: a fixed number, fitted to no sample, which promises no "
        "share of the real alleles (calibration: none (the model's own scores)"
        + (f": {reason})" if reason else ")")
    )
    assert score.startswith("Natural-log odds, not calibrated,")


def test_private_figures_are_told_with_their_cost_and_noise(lab, called):
    cost = {
        "unit": "patient", "epsilon": 0.5, "delta": 1e-5, "mechanism": "Poisson-sampled Gaussian",
        "adjacency": "add or remove one unit", "accountant": "RDP", "sites_per_patient": 1,
    }  # fmt: skip
    private = for_both(Curve.line(1.5, -0.25), {"0.9": -0.5}, "private", "a", margin=0.0123, cost=cost)
    model, filtered, score = words_of(lab, called, private)
    stated = (
        "epsilon 0.5 (unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove one "
        "unit; scope: this calibration), by RDP"
    )
    assert filtered == (
        "CORDON below -0.5, the threshold that keeps 0.9 of the real alleles, give or take 0.012 by its "
        "noise, among those of site a's labelled samples (calibration: private figures of site a's labelled "
        f"samples, at {stated})"
    )
    assert {name: model[f"Calibration{name}"] for name in ("Mode", "Epsilon", "Delta", "Unit")} == {
        "Mode": '"private"', "Epsilon": "0.5", "Delta": "1e-05", "Unit": '"patient"',
    }  # fmt: skip
    assert (model["CalibrationAccountant"], model["CalibrationSitesPerPatient"]) == ('"RDP"', "1")
    assert model["CalibrationScope"] == '"this calibration"'
    assert model["CalibrationAdjacency"] == '"add or remove one unit"'
    assert model["CalibrationMechanism"] == '"Poisson-sampled Gaussian"'
    assert (model["TruthSensitivity"], model["TruthSensitivityMargin"]) == ('"0.9"', '"0.012"')
    assert score.startswith("Calibrated natural-log odds")


def test_bcftools_reads_it_without_a_warning_and_by_region(lab, called, capfd):
    write(lab, called, uncalibrated("none", "a"))
    capfd.readouterr()
    assert len(bcftools.view("-H", str(lab.folder / "s1.scored.vcf.gz"), "chr2:300").splitlines()) == 1
    bcftools.query("-f", "%INFO/MQ\n", str(lab.folder / "s1.scored.vcf.gz"))
    assert capfd.readouterr().err == ""


def test_a_table_of_other_calls_is_refused_and_nothing_is_left(lab, called):
    calls, table = called
    fewer = {"haplotypecaller": calls["haplotypecaller"]}
    with pytest.raises(
        UserError, match=r"chr1:100 .*bcftools;haplotypecaller called it, the VCFs say haplotypecaller"
    ):
        write(lab, (fewer, table), uncalibrated("none", "a"))
    assert not list(lab.folder.glob("*s1.scored*"))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_whatever_the_row_groups_alleles_at_one_place_find_their_own_records(lab, called, monkeypatch, rows):
    """A position's alleles may stand in two row groups, and a VCF may hold others there."""
    base = lab.sequences["chr1"][99]
    one, two, three = [allele for allele in "ACGT" if allele != base]
    records = [
        f"chr1 100 {base} {alt} {qual} . . GT 0/1" for alt, qual in ((one, 11), (three, 13), (two, 12))
    ]
    records.insert(0, f"chr1 90 {lab.sequences['chr1'][89]} {other(lab.sequences['chr1'][89])} 9 . . GT 0/1")
    records.append(f"chr2 300 {lab.sequences['chr2'][299]} {other(lab.sequences['chr2'][299])} 7 . . GT 0/1")
    calls = {"bcftools": lab.vcf("several.vcf.gz", records)}
    row = dict(called[1].to_pylist()[0]) | {"callers": "bcftools"}
    rest = called[1].to_pylist()[2] | {"callers": "bcftools"}
    table = pa.Table.from_pylist([*(row | {"alt": alt} for alt in (one, two, three)), rest], schema=VARIANTS)
    monkeypatch.setattr("cordon.variants.table.BATCH_ROWS", rows)
    assert write(lab, (calls, table), uncalibrated("none", "a")) == 4
    body = bcftools.view("-H", str(lab.folder / "s1.scored.vcf.gz")).splitlines()
    found = [tuple(line.split("\t")[place] for place in (1, 4, 5)) for line in body]
    assert found[:3] == [("100", one, "11"), ("100", two, "12"), ("100", three, "13")]
    assert found[3][0] == "300"
    scored = pq.read_table(lab.folder / "s1.scored.parquet")
    assert scored.select(VARIANTS.names).equals(table.drop_columns([]))
    written = pq.ParquetFile(lab.folder / "s1.scored.parquet").metadata
    assert all(written.row_group(at).num_rows <= rows for at in range(written.num_row_groups))


def test_a_table_that_is_not_sorted_is_refused_and_nothing_is_left(lab, called):
    calls, table = called
    with pytest.raises(UserError, match=r"chr1:100 comes after chr1:200 .*sorted by position"):
        write(lab, (calls, table.take([1, 0, 2])), uncalibrated("none", "a"))
    assert not list(lab.folder.glob("*s1.scored*"))


def test_no_candidates_give_an_indexed_vcf_without_records(lab, called):
    empty = {"bcftools": lab.vcf("none.vcf.gz", [])}
    assert write(lab, (empty, VARIANTS.empty_table()), uncalibrated("none", "a")) == 0
    assert (lab.folder / "s1.scored.vcf.gz.tbi").exists()


def test_scores_that_are_not_finite_are_refused(called):
    class Broken(Fake):
        def score(self, features):
            return np.full(len(features), np.nan)

    with pytest.raises(UserError, match="abc123 gives scores that are not finite"):
        Scoring(Broken(), uncalibrated("none", "a"), "0.9").table(called[1])


def test_a_model_of_other_features_is_refused(called):
    class Older(Fake):
        features = ("f_old", *FEATURES[1:])

    class Turned(Fake):
        features = FEATURES[::-1]

    for model, named in (
        (Older(), r"\(f_called_bcftools, f_old differ\)"),
        (Turned(), r"\(their order differ\)"),
    ):
        with pytest.raises(UserError, match=named):
            Scoring(model, uncalibrated("none", "a"), "0.9").table(called[1])


def test_the_commands_lead_from_reads_to_a_scored_vcf(lab, command):
    sequence = lab.sequences["chr1"]
    changed = sequence[:299] + other(sequence[299]) + sequence[300:]
    reads = [Read(start, bases=changed[start : start + 100]) for start in range(205, 295, 3)]
    files = {
        "raw": lab.bam("raw.bam", reads),
        "truth": lab.vcf("truth.vcf.gz", [f"chr1 300 {sequence[299]} {other(sequence[299])} . . . GT 1/1"]),
        "confident": lab.bed("confident.bed", ("chr1", 0, 1500)),
        "model": lab.folder / "model.safetensors",
    }
    privacy = dict(Fake.privacy) | {"mechanism": GAUSSIAN, "adjacency": ADJACENCY}
    Model("logistic", FEATURES, initial_parameters("logistic", len(FEATURES)), privacy).save(files["model"])
    names = [
        "s1.bam",
        "raw.vcf.gz",
        "s1.vcf.gz",
        "v.parquet",
        "l.parquet",
        "c.json",
    ]
    files |= {name: lab.folder / name for name in names}
    row = f"s1,{files['l.parquet']},bcftools={files['s1.vcf.gz']}"
    files["s.csv"] = lab.text("s.csv", f"sample,variants,calls\n{row}\n")
    files["who"] = lab.text("who.json", '{"patient": "p", "sample": "x"}')
    reference = lab.folder / "ref" / "reference.fasta"
    lines = """
        prepare_reference --reference {given} --outdir {folder}/ref
        normalise_reads --bam {raw} --sample s1 --reference {reference} --output {s1.bam}
        bcftools_call --bam {s1.bam} --sample s1 --reference {reference} --output {raw.vcf.gz}
        normalise_variants --vcf {raw.vcf.gz} --sample s1 --reference {reference} --output {s1.vcf.gz}
        encode_variants --site a --sample s1 --pseudonyms {who} --bam {s1.bam} --reference {reference} --calls bcftools={s1.vcf.gz} --output {v.parquet}
        label_variants --variants {v.parquet} --sample s1 --truth {truth} --confident {confident} --reference {reference} --output {l.parquet}
        calibrate_scores --model {model} --variants {l.parquet} --site a --output {c.json}
        score_variants --model {model} --calibration {c.json} --samples {s.csv} --reference {reference} --truth_sensitivity 0.990 --outdir {folder}
    """  # noqa: E501
    for name, path in (
        files | {"given": lab.reference, "folder": lab.folder, "reference": reference}
    ).items():
        lines = lines.replace(f"{{{name}}}", str(path))
    said = [command(*line.split()) for line in lines.strip().splitlines()]
    assert said[-1] == "s1: 1 of 1 candidates pass\n"
    assert "only real alleles" in said[-2]
    scored = read_table(lab.folder / "s1.scored.parquet", LABELLED)
    assert scored["label"].to_pylist() == [1]
    assert len(bcftools.view("-H", str(lab.folder / "s1.scored.vcf.gz")).splitlines()) == 1


WITHOUT_TORCH = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "opacus"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("architecture", ["logistic", "mlp"])
@pytest.mark.stress
def test_dense_models_are_calibrated_applied_and_judged_where_there_is_no_torch(lab, architecture):
    places = ((100, 0), (101, 1))
    rows = [table_row(contig="chr1", label=label, position=place) for place, label in places]
    table = lab.folder / "l.parquet"
    write_table(pa.Table.from_pylist(rows, schema=LABELLED), table)
    vcf = lab.vcf("s1.vcf.gz", [f"chr1 {place} A C 50 . . GT 0/1" for place, _ in places])
    model = lab.folder / "model.safetensors"
    parameters = initial_parameters(architecture, len(FEATURES))
    privacy = dict(Fake.privacy) | {"mechanism": GAUSSIAN, "adjacency": ADJACENCY}
    Model(architecture, FEATURES, parameters, privacy).save(model)
    sheet = lab.text("s.csv", f"sample,variants,calls\ns1,{table},bcftools={vcf}\n")
    lab.text("sites.csv", "site,declared_patients,weight\na,40,1\n")
    for name, words in (
        ("calibrate_scores", f"--model {model} --variants {table} --site a --output c.json"),
        (
            "calibrate_scores",
            f"--model {model} --variants {table} --site a --mode private --state sites --epsilon 8 "
            "--delta 1e-5 --accountant rdp --sites sites.csv --calibration_epsilon 1 --output private.json",
        ),
        (
            "score_variants",
            f"--model {model} --calibration c.json --samples {sheet} --reference {lab.reference}",
        ),
        ("evaluate_scores", "--scores s1.scored.parquet --output e.json"),
    ):
        command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "bin" / f"{name}.py"), *words.split()]
        done = subprocess.run(command, cwd=lab.folder, text=True, capture_output=True)
        assert done.returncode == 0, (name, done.stderr)
    scored = pq.read_table(lab.folder / "s1.scored.parquet")
    assert scored["cordon"].to_pylist() == pytest.approx([PRIOR_LOG_ODDS] * 2)


def test_every_bad_row_of_the_samples_to_score_is_named_at_once(lab):
    vcf = lab.vcf("s1.vcf.gz", [])
    table = lab.text("s1.parquet", "")
    rows = [
        f"s1,{table},bcftools={vcf}", f"s1,{table},bcftools={vcf}", f"s2,missing.parquet,bcftools={vcf}",
        f"s3,{table},other", f"s4,{table},", f",{table},bcftools={vcf}",
    ]  # fmt: skip
    sheet = lab.text("samples.csv", "\n".join(["sample,variants,calls", *rows]) + "\n")
    with pytest.raises(InputProblems) as caught:
        read_samples(sheet)
    said = [str(problem) for problem in caught.value.problems]
    assert [line.split(": ")[0] for line in said] == [f"samples.csv, row {row}" for row in (3, 4, 5, 6, 7)]
    faults = ("'s1' is no sample of its own. Give", "missing.parquet: no variant table. Check")
    for line, words in zip(said, (*faults, "names no caller", "no calls", "''"), strict=True):
        assert words in line
    (one,) = read_samples(lab.text("one.csv", "\n".join(["sample,variants,calls", rows[0]]) + "\n"))
    assert (one.sample, one.variants, one.calls) == ("s1", table, {"bcftools": vcf})
    with pytest.raises(InputProblems, match="no sample"):
        read_samples(lab.text("none.csv", "sample,variants,calls\n"))


def test_definitions_that_disagree_are_widened(lab):
    def merged(first, second):
        paths = [
            lab.vcf(name, [], header=[f'##INFO=<ID=X,{text},Description="d">'])
            for name, text in (("1.vcf.gz", first), ("2.vcf.gz", second))
        ]
        return next(line for line in merged_header(paths, lab.contigs, [], "s1") if "ID=X," in line)

    assert "Number=.,Type=Float" in merged("Number=1,Type=Integer", "Number=A,Type=Float")
    assert "Number=1,Type=String" in merged("Number=1,Type=Integer", "Number=1,Type=String")
