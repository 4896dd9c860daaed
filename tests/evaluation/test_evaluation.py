"""Scores and filters against the truth: small cases worked out by hand, and what bad input says."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cordon.errors import InputProblems, UserError
from cordon.evaluation import evaluate as evaluation
from cordon.evaluation.accuracy import curves, keep, rank
from cordon.evaluation.evaluate import evaluate, read_held_out
from cordon.variants.features import FEATURES
from cordon.variants.labels import KNOWN_SITES, SOURCE_KEY, TRUTH_SET
from cordon.variants.table import LABELLED, TRUTH_ALLELES_KEY

EVALUATE_SCORES = Path(__file__).parents[2] / "bin" / "evaluate_scores.py"

# Six alleles: label, Cordon's score and verdict, HaplotypeCaller's QUAL and own filter (None: not called).
ALLELES = [
    (1, 3.0, True, 50.0, True),
    (1, 2.0, True, 30.0, False),
    (1, 1.0, True, None, None),
    (0, 1.5, True, 40.0, True),
    (0, -1.0, False, 20.0, False),
    (None, 0.0, False, 99.0, True),
]


def write_scored(
    path: Path,
    alleles: list[tuple[Any, ...]] = ALLELES,
    site: str = "north",
    truth: int | None = 4,
    frequencies: list[float | None] | None = None,
    source: bytes = TRUTH_SET,
) -> Path:
    """A scored table of SNVs, the last allele an insertion; only HaplotypeCaller called, and without QD."""
    count = len(alleles)
    columns: dict[str, Any] = {
        "site": [site] * count,
        "patient": [f"{site}1"] * count,
        "sample": [path.name.split(".")[0]] * count,
        "contig": ["chr20"] * count,
        "position": list(range(1, count + 1)),
        "ref": ["A"] * count,
        "alt": ["C"] * (count - 1) + ["CT"],
        "variant_type": ["SNV"] * (count - 1) + ["insertion"],
        "context": ["plain"] * (count - 1) + ["homopolymer"],
        "zygosity": ["heterozygous"] * (count - 1) + ["homozygous"],
        "allele_frequency": frequencies or [None] * count,
        "callers": ["haplotypecaller" if allele[3] is not None else "" for allele in alleles],
        "haplotypecaller_qual": [allele[3] for allele in alleles],
        "haplotypecaller_pass": [allele[4] for allele in alleles],
        "label": [allele[0] for allele in alleles],
    }
    arrays = []
    for field in LABELLED:
        blank = [0.0] * count if not field.nullable else [None] * count
        arrays.append(pa.array(columns.get(field.name, blank), type=field.type))
    metadata = {**LABELLED.metadata, SOURCE_KEY: source}
    if truth is not None:
        metadata[TRUTH_ALLELES_KEY] = str(truth).encode()
    table = pa.Table.from_arrays(arrays, schema=LABELLED.with_metadata(metadata))
    table = table.append_column("cordon", pa.array([allele[1] for allele in alleles], pa.float64()))
    table = table.append_column("cordon_pass", pa.array([allele[2] for allele in alleles], pa.bool_()))
    pq.write_table(table, path)
    return path


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name)


def test_a_row_that_repeats_others_counts_no_second_time(tmp_path: Path) -> None:
    """Of four real alleles that are called, one writes the haplotype of others."""
    path = write_scored(tmp_path / "p1.parquet", [*ALLELES[:3], ALLELES[0], *ALLELES[3:]], truth=3)
    table = pq.read_table(path)
    with pytest.raises(UserError, match="3 truth alleles but label 4 alleles as real"):
        evaluate(read_held_out([path]))
    repeats = [None, None, None, "chr20:1:A>C", None, None, None]
    pq.write_table(table.append_column("cordon_repeats", pa.array(repeats, pa.string())), path)
    result = evaluate(read_held_out([path]))
    assert result["alleles"] == {"true": 3, "false": 2, "truth": 3}
    assert named(result["filters"], "cordon")["true_kept"] == 3


def test_rank_is_the_share_of_pairs_in_order_and_the_mean_precision_at_each_real_allele() -> None:
    real = np.array([True, False, True, False])
    score = np.array([0.9, 0.8, 0.7, 0.1])
    assert rank(real, score) == {"auroc": 0.75, "auprc": round((1 / 1 + 2 / 3) / 2, 6)}


def test_keep_counts_sensitivity_over_all_truth_alleles_and_recall_over_the_proposed() -> None:
    real = np.array([True, True, True, False])
    kept = np.array([True, True, False, True])
    assert keep(real, kept, truth=5) == {
        "true_kept": 2, "false_kept": 1, "sensitivity": 0.4, "recall": round(2 / 3, 6),
        "precision": round(2 / 3, 6), "f1": 0.5,
    }  # fmt: skip


def test_a_filter_that_keeps_nothing_has_no_precision() -> None:
    result = keep(np.array([True, False]), np.array([False, False]), truth=1)
    assert (result["precision"], result["sensitivity"], result["f1"]) == (None, 0.0, 0.0)


def test_scores_and_filters_of_a_table(tmp_path: Path) -> None:
    result = evaluate(read_held_out([write_scored(tmp_path / "s1.scored.parquet")]))
    assert result["alleles"] == {"true": 3, "false": 2, "truth": 4}
    assert result["samples"] == ["north/s1"]
    assert result["truth_source"] == "truth set"
    # Six pairs of a real and a false allele; only the real one at 1.0 is below the false one at 1.5.
    assert named(result["scores"], "cordon")["auroc"] == round(5 / 6, 6)
    assert {row["name"]: (row["true_kept"], row["false_kept"]) for row in result["filters"]} == {
        "no filter": (3, 2),
        "haplotypecaller unfiltered": (2, 2),
        "haplotypecaller": (1, 1),
        "cordon": (3, 1),
    }
    assert named(result["filters"], "cordon")["sensitivity"] == 0.75
    assert named(result["filters"], "cordon")["f1"] == 0.75


def test_an_allele_that_a_caller_did_not_call_ranks_below_all_that_it_called(tmp_path: Path) -> None:
    result = evaluate(read_held_out([write_scored(tmp_path / "s1.scored.parquet")]))
    # Real 50, 30 and not called; false 40 and 20: 50 beats both, 30 beats 20, not called beats none.
    assert named(result["scores"], "haplotypecaller QUAL")["auroc"] == 0.5
    assert "haplotypecaller QD" not in {row["name"] for row in result["scores"]}


def test_a_called_allele_without_qd_ranks_between_called_and_not_called(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("haplotypecaller_qd")
    qd = pa.array([None, 9.0, None, 5.0, 1.0, 8.0], pa.float32())
    pq.write_table(table.set_column(place, LABELLED.field("haplotypecaller_qd"), qd), path)
    score = read_held_out([path]).scores["haplotypecaller QD"]
    assert score[2] < score[0] < score[4] < score[3] < score[1]


def test_each_site_is_a_stratum_with_its_own_truth(tmp_path: Path) -> None:
    north = write_scored(tmp_path / "n.scored.parquet", site="north", truth=4)
    south = write_scored(tmp_path / "s.scored.parquet", site="south", truth=6)
    result = evaluate(read_held_out([north, south]))
    truth = {row["name"]: row["alleles"]["truth"] for row in result["strata"] if row["kind"] == "site"}
    assert truth == {"north": 4, "south": 6}
    assert named(result["strata"], "SNV")["alleles"] == {"true": 6, "false": 4, "truth": None}
    assert result["alleles"]["truth"] == 10
    snv = named(named(result["strata"], "SNV")["filters"], "cordon")
    assert (snv["sensitivity"], snv["f1"], snv["recall"]) == (None, None, 1.0)


def test_rare_alleles_have_strata_of_their_own(tmp_path: Path) -> None:
    frequencies = [0.0, 0.00005, 0.0005, 0.2, None, None]
    path = write_scored(tmp_path / "s1.scored.parquet", frequencies=frequencies)
    strata = evaluate(read_held_out([path]))["strata"]
    found = {(row["kind"], row["name"]): (row["alleles"]["true"], row["alleles"]["false"]) for row in strata}
    assert found == {
        ("type", "SNV"): (3, 2),
        ("frequency", "absent or below 0.01 %"): (2, 0),
        ("frequency", "0.01-0.1 %"): (1, 0),
        ("frequency", "5 % or more"): (0, 1),
        ("zygosity", "heterozygous"): (0, 1),
        ("context", "plain"): (3, 2),
        ("callers", "haplotypecaller"): (2, 2),
        ("site", "north"): (3, 2),
    }  # fmt: skip
    rare = next(row for row in strata if row["name"] == "absent or below 0.01 %")
    assert named(rare["filters"], "haplotypecaller")["recall"] == 0.5


def test_labels_that_come_of_known_sites_are_said_to(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet", truth=None, source=KNOWN_SITES)
    assert evaluate(read_held_out([path]))["truth_source"] == "known sites"


def test_stated_probabilities_are_compared_with_what_is_real(tmp_path: Path) -> None:
    """Log-odds 3, 2, 1, 1.5 and -1 are 0.953, 0.881, 0.731, 0.818 and 0.269; the last two are false."""
    found = evaluate(read_held_out([write_scored(tmp_path / "s1.scored.parquet")]))["calibration"]
    assert [(bin["low"], bin["alleles"], bin["stated"], bin["real"]) for bin in found["bins"]] == [
        (0.2, 1, pytest.approx(0.268941), 0.0),
        (0.7, 1, pytest.approx(0.731059), 1.0),
        (0.8, 2, pytest.approx((0.880797 + 0.817574) / 2), 0.5),
        (0.9, 1, pytest.approx(0.952574), 1.0),
    ]
    assert found["ece"] == pytest.approx((0.268941 + 0.268941 + 2 * 0.349186 + 0.047426) / 5, abs=1e-6)
    squares = (0.047426**2, 0.119203**2, 0.268941**2, 0.817574**2, 0.268941**2)
    assert found["brier"] == pytest.approx(sum(squares) / 5, abs=1e-6)


def test_the_features_are_not_kept_in_memory(tmp_path: Path) -> None:
    table = evaluation._read(write_scored(tmp_path / "s1.scored.parquet"))
    assert set(FEATURES) & set(table.schema.names) == {"f_alt_fraction"}
    assert table.schema.names[-2:] == ["cordon", "cordon_pass"]


def test_without_truth_counts_sensitivity_is_over_the_candidates_and_says_so(tmp_path: Path) -> None:
    result = evaluate(read_held_out([write_scored(tmp_path / "s1.scored.parquet", truth=None)]))
    assert result["truth_source"] == "candidates"
    assert result["alleles"]["truth"] == 3


def test_one_class_only_has_no_auroc_and_no_curve(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet", alleles=ALLELES[:3])
    score = evaluate(read_held_out([path]))["scores"][0]
    assert [score[key] for key in ("auroc", "auprc", "roc", "pr")] == [None] * 4


def test_curves_are_thinned_and_keep_both_ends() -> None:
    random = np.random.default_rng(7)
    real = random.random(20_000) < 0.8
    score = random.normal(size=real.size) + real
    drawn = curves(real, score)
    assert drawn["roc"] is not None
    assert drawn["pr"] is not None
    fpr, tpr = drawn["roc"]["fpr"], drawn["roc"]["tpr"]
    assert len(fpr) == len(tpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert drawn["pr"]["recall"][-1] == 1.0
    assert np.trapezoid(tpr, fpr) == pytest.approx(rank(real, score)["auroc"], abs=0.001)


def test_no_labelled_allele_is_a_users_error(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet", alleles=[(None, *allele[1:]) for allele in ALLELES])
    with pytest.raises(UserError, match="no labelled allele to evaluate"):
        read_held_out([path])
    with pytest.raises(UserError, match="no table given"):
        read_held_out([])


def test_a_labelled_allele_without_a_score_is_named_by_row(tmp_path: Path) -> None:
    alleles = [*ALLELES[:3], (0, float("nan"), True, 40.0, True)]
    path = write_scored(tmp_path / "s1.scored.parquet", alleles=alleles)
    with pytest.raises(InputProblems, match=r"s1\.scored\.parquet, row 4: column cordon has no finite value"):
        read_held_out([path])


def test_every_disagreement_between_tables_is_told_at_once(tmp_path: Path) -> None:
    first = write_scored(tmp_path / "s1.scored.parquet")
    pq.write_table(pq.read_table(first).drop_columns(["cordon_pass"]), first)
    (tmp_path / "again").mkdir()
    second = write_scored(tmp_path / "again" / "s1.scored.parquet")
    with pytest.raises(InputProblems) as caught:
        read_held_out([first, second])
    assert len(caught.value.problems) == 2
    assert "score columns differ" in str(caught.value)
    assert "sample north/s1 is also in" in str(caught.value)


def test_fewer_truth_alleles_than_real_ones_is_refused(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet", truth=2)
    with pytest.raises(UserError, match="2 truth alleles but label 3 alleles as real"):
        evaluate(read_held_out([path]))


def test_the_command_writes_json_and_prints_each_auroc(tmp_path: Path) -> None:
    path = write_scored(tmp_path / "s1.scored.parquet")
    output = tmp_path / "evaluation.json"
    main = runpy.run_path(str(EVALUATE_SCORES))["main"]
    result = CliRunner().invoke(main, ["--scores", str(path), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "AUROC cordon: 0.8333" in result.output
    assert json.loads(output.read_text())["alleles"]["truth"] == 4
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_the_command_leaves_with_status_2_on_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_text("nothing")
    main = runpy.run_path(str(EVALUATE_SCORES))["main"]
    result = CliRunner().invoke(main, ["--scores", str(broken), "--output", str(tmp_path / "e.json")])
    assert result.exit_code == 2
    assert "broken.parquet: not a readable Parquet file" in result.output
    assert not (tmp_path / "e.json").exists()
