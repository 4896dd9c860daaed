"""Tests of benchmarks/throughput.py: every path makes the same step, and the figures have their columns."""

import json

import pytest
import torch
from click.testing import CliRunner

import throughput
from cordon.model.architectures import build


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("path", [path for path in throughput.PATHS if path != "cordon_sampled"])
def test_every_path_makes_the_same_step_but_for_clipping_and_noise(monkeypatch, path, rows):
    monkeypatch.setattr(throughput, "NOISE", 0.0)
    monkeypatch.setattr(throughput, "CLIP", 1e6)
    batch = throughput.Batch.random(64, rows, "variant")
    expected = build("mlp", throughput.FEATURES)
    throughput.plain_sgd(expected, batch)()
    module = build("mlp", throughput.FEATURES)
    throughput.PATHS[path](module, batch)()
    found = torch.cat([value.flatten() for value in module.parameters()])
    assert torch.allclose(found, torch.cat([value.flatten() for value in expected.parameters()]), atol=1e-5)


@pytest.mark.stress
def test_the_figures_are_a_list_of_rows():
    result = CliRunner().invoke(
        throughput.main,
        [
            "--models",
            "logistic",
            "--batches",
            "64",
            "--units",
            "variant",
            "--paths",
            "cordon",
            "--repeats",
            "2",
            "--json",
        ],
        catch_exceptions=False,
    )
    rows = json.loads(result.output)
    assert [row["path"] for row in rows] == ["sgd", "cordon"]
    assert all(row["samples_per_s"] > 0 and row["ratio_to_sgd"] > 0 for row in rows)
    assert {"unit", "model", "batch", "peak_step_mb", "peak_ratio_to_sgd"} < set(rows[0])
