"""Public starts: fitting, what may be one, and whether a run's model replaces it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from conftest import table_row
from cordon.cli import main
from cordon.errors import UserError
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.run import Aggregation, RoundLimits, RunSetup
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model, load
from cordon.training.pretrain import (
    KEEP,
    REFINE,
    PublicStart,
    chosen,
    fit,
    public_start,
    read_public,
    refine_or_keep,
)
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table

F = len(FEATURES)


def rows(count=1500, seed=0):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, F)).astype(np.float32)
    return features, (features[:, 0] + features[:, 1] > 0).astype(np.float32)


def public(parameters, architecture="logistic"):
    return Model(architecture, FEATURES, parameters, {"data": "public"})


def table(path, seed=0):
    features, labels = rows(seed=seed)
    made = [
        table_row(
            position=place + 1, label=int(label), **dict(zip(FEATURES, map(float, values), strict=True))
        )
        for place, (values, label) in enumerate(zip(features, labels, strict=True))
    ]
    write_table(pa.Table.from_pylist(made, schema=LABELLED), path)
    return path


@pytest.mark.stress
@pytest.mark.parametrize("architecture", ["logistic", "mlp"])
def test_a_fit_learns_the_rule_and_is_the_same_twice(architecture):
    features, labels = rows()
    fitted = fit(architecture, features, labels)
    held_out, truth = rows(seed=1)
    score = Model(architecture, FEATURES, fitted).score(held_out)
    assert ((score > 0) == (truth == 1)).mean() > 0.9
    again = fit(architecture, features, labels)
    assert all(np.array_equal(fitted[name], again[name]) for name in fitted)


def test_one_class_is_refused():
    features, labels = rows()
    with pytest.raises(UserError, match="of one class only"):
        fit("logistic", features, np.ones_like(labels))


def test_the_better_on_public_rows_is_released():
    features, labels = rows()
    good = public(fit("logistic", features, labels))
    blank = public(initial_parameters("logistic", F))
    held_out = rows(seed=1)
    assert refine_or_keep(blank, good, *held_out).decision == REFINE
    kept = refine_or_keep(good, blank, *held_out)
    assert kept.decision == KEEP
    assert kept.pretrained_auroc > 0.95 > kept.refined_auroc == 0.5
    assert refine_or_keep(good, good, *held_out).decision == REFINE


def test_the_command_writes_what_a_plan_can_start_from(tmp_path):
    output = tmp_path / "public.safetensors"
    words = ["pretrain", str(table(tmp_path / "t.parquet")), "--model", "logistic", "--output", str(output)]
    run = CliRunner().invoke(main, words, catch_exceptions=False)
    assert run.exit_code == 0
    model = load(output)
    assert model.hash in run.output
    assert public_start(output) == {"model": "logistic", "start": model.hash}


def test_a_model_of_patients_is_no_public_start(tmp_path):
    path = tmp_path / "m.safetensors"
    Model("logistic", FEATURES, initial_parameters("logistic", F), {"epsilon": 8.0, "unit": "patient"}).save(
        path
    )
    with pytest.raises(UserError, match="not trained on public data alone"):
        read_public(path)
    Model("logistic", ("x",), initial_parameters("logistic", 1), {"data": "public"}).save(path)
    with pytest.raises(UserError, match="made for other features"):
        read_public(path)


SITE = Site("h1", 40, 1.0, "key")
PLAN = Plan(
    run="r", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=1, local_steps=1,
    sampling_rate=0.5, noise_multiplier=2.0, clip_norm=1.0, learning_rate=1.0, max_variants_per_patient=8,
)  # fmt: skip


def aggregation(tmp_path, plan, start):
    log = ChainedLog(tmp_path / "ledger.sqlite")
    setup = RunSetup(plan, [SITE], FEATURES, RoundLimits(1, 1.0, 1.0), start)
    return Aggregation(setup, ledger=log, checkpoints=Checkpoints(tmp_path, log), say=lambda _: None)


def test_the_aggregator_starts_from_the_plans_public_model_and_from_no_other(tmp_path):
    good = public(fit("logistic", *rows()))
    run = aggregation(tmp_path, replace(PLAN, start=good.hash), PublicStart(good))
    assert all(np.array_equal(run.parameters[name], good.parameters[name]) for name in good.parameters)
    for plan, start in ((PLAN, PublicStart(good)), (replace(PLAN, start="0" * 64), PublicStart(good)),
                        (replace(PLAN, start=good.hash), None)):  # fmt: skip
        with pytest.raises(UserError, match="starts from another model"):
            aggregation(tmp_path, plan, start)


def test_a_kept_start_is_released_with_the_runs_own_epsilon_and_recorded(tmp_path):
    good = public(fit("logistic", *rows()))
    refined = Model(
        "logistic", FEATURES, initial_parameters("logistic", F), {"epsilon": 8.0, "unit": "patient"}
    )
    said = []
    released, about = chosen(PublicStart(good, rows(seed=1)), refined, said.append)
    assert released.privacy == refined.privacy
    assert released.hash == good.hash
    record = json.loads(json.dumps(about))
    assert record["decision"] == KEEP
    assert record["model_hash"] == good.hash
    assert "held-out public alleles: AUROC" in said[0]
    assert chosen(PublicStart(good), refined, said.append) == (refined, {"model_hash": good.hash})
    assert chosen(None, refined, said.append) == (refined, {})
