"""Tests of initial_weights: the file is what the architectures start from, and needs no torch."""

import subprocess
import sys

import numpy as np
import pytest

from cordon.model.architectures import ARCHITECTURES, build, parameters_of
from cordon.model.initial_weights import initial_parameters, shipped
from cordon.variants.features import FEATURES

WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "opacus", "pyarrow", "sklearn", "pysam"):
            raise ModuleNotFoundError(f"{name} is absent")

sys.meta_path.insert(0, Absent())
from cordon.variants.features import FEATURES
from cordon.federation.aggregator import run, service
from cordon.federation.flower import processes
from cordon.federation.gate import app
from cordon.federation.aggregator.noise_checks import ceiling, reference
from cordon.federation.plan import Plan
from cordon.model.initial_weights import initial_parameters

for optimiser in ("sgd", "adam"):
    plan = Plan.calibrated(
        model="pileup_cnn", unit="patient", epsilon=8.0, delta=1e-5, rounds=2, local_steps=2,
        sampling_rate=0.5, clip_norm=0.05, learning_rate=0.1, optimiser=optimiser,
        max_variants_per_patient=256,
    )
    assert reference(plan, 6).deviation > 0 and ceiling(plan, 6, 46) > 0
print(len(initial_parameters(plan.model, len(FEATURES))))
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_holds_the_start_that_the_architecture_draws(architecture):
    drawn = parameters_of(build(architecture, len(FEATURES)))
    held = initial_parameters(architecture, len(FEATURES))
    assert held.keys() == drawn.keys()
    for name, value in drawn.items():
        assert held[name].dtype == value.dtype
        # torch draws normal numbers by the processor's own logarithm and cosine: the last bits may differ.
        np.testing.assert_allclose(held[name], value, rtol=1e-4, atol=1e-6)


def test_another_number_of_features_is_drawn():
    assert shipped("mlp", 7) is None
    assert initial_parameters("mlp", 7)["0.weight"].shape == (16, 7)
    assert shipped("perceptron", len(FEATURES)) is None


def test_a_start_that_was_changed_is_not_the_next_ones():
    initial_parameters("logistic", len(FEATURES))["0.bias"][:] = 7.0
    assert initial_parameters("logistic", len(FEATURES))["0.bias"][0] != 7.0


@pytest.mark.stress
def test_an_aggregator_plans_judges_and_starts_without_torch():
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 4
