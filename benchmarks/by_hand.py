#!/usr/bin/env python3
"""What a federation written by hand on Flower and Opacus reports, truly spends and is worth, beside Cordon's.

    python benchmarks/by_hand.py results/demo/variants/*.parquet

``by_hand_app.py`` is what one would write; here it runs in one process, by Flower's own ClientApp and
strategies, on the rows that Cordon trains on. A site's last ``--held_out`` tables are never trained on.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_FLOOR
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from scipy.optimize import brentq
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

import by_hand_app
from cohort import federated, held_out_rows
from cordon.federation.plan import Plan
from cordon.model.released import Model
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import GAUSSIAN, Event
from cordon.privacy.guarantee import ADJACENCY, Guarantee
from cordon.privacy.noise_calibration import calibrate_noise
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, matrix, read_table

EPSILON, DELTA = 8.0, 1e-5
# By rows: an epoch a round, the best of four pairs of clip norm and learning rate on the demo's held-out
# patients. By patients: the demo's own settings.
ROWS = {"sample": "row", "batch-size": 64, "local-epochs": 1, "clip-norm": 1.0, "learning-rate": 2.0}
PATIENTS = {"sample": "patient", "batch-size": 3, "local-epochs": 5, "clip-norm": 0.05, "learning-rate": 2.0}
# What a site's whole update is clipped to where the unit is a site: the best of four.
SITE_CLIP = 0.3


@dataclass(frozen=True)
class Cohort:
    """Training tables by site, and the labelled rows that no one trains on: features [n, F], labels [n]."""

    sites: dict[str, list[Path]]
    features: np.ndarray
    labels: np.ndarray

    @classmethod
    def read(cls, tables: Sequence[Path], held_out: int) -> Cohort:
        by_site: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(tables):
            by_site[read_table(path, LABELLED).column("site")[0].as_py()].append(path)
        testing = held_out_rows([path for paths in by_site.values() for path in paths[-held_out:]])
        training = {site: paths[:-held_out] for site, paths in by_site.items()}
        return cls(training, matrix(testing), testing.column("label").to_numpy())

    def auroc(self, score: np.ndarray) -> float:
        return float(roc_auc_score(self.labels, score))

    def spent(self, config: Mapping[str, Any], rounds: int) -> float:
        """Epsilon of a sample in all rounds at DELTA, at the site that spends most."""
        noise, sample = float(config["noise"]), str(config["sample"])
        each = (steps_and_rate(samples_of(paths, sample), config) for paths in self.sites.values())
        return max(epsilon_rdp([Event(noise, rate, steps * rounds)], DELTA) for steps, rate in each)

    def patient_spent(self, config: Mapping[str, Any], rounds: int) -> float:
        """`patient_epsilon` of the patient that spends most, where rows are the samples."""
        found = []
        for paths in self.sites.values():
            steps, rate = steps_and_rate(samples_of(paths, "row"), config)
            most = max(samples_of([path], "row") for path in paths)
            found.append(patient_epsilon(float(config["noise"]), rate, steps * rounds, most))
        return max(found)

    def units(self, unit: str) -> dict[str, Units]:
        return {site: Units.read(paths, unit=unit) for site, paths in self.sites.items()}


class Grid:
    """As much of Flower's Grid as its strategies use: every site is a ClientApp in this process."""

    def __init__(self, sites: Mapping[str, Sequence[Path]]) -> None:
        self.contexts = {
            number: Context(1, number, {"tables": ":".join(map(str, paths))}, RecordDict(), {})
            for number, paths in enumerate(sites.values(), start=1)
        }
        self.replies: list[RecordDict] = []

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def send_and_receive(self, messages: Sequence[Message], *, timeout: float | None = None) -> list[Message]:
        asked = [(message, self.contexts[message.metadata.dst_node_id]) for message in messages]
        replies = [by_hand_app.app(message, context) for message, context in asked]
        self.replies += [reply.content for reply in replies]
        return replies


@dataclass(frozen=True)
class Way:
    """One way to train: the ``unit`` of its mechanism, what it reports, and what its site that spends most
    spends, in a whole run. ``patient`` is what a patient spends at least; None where nothing bounds it.
    """

    name: str
    unit: str
    mechanism: str
    noise: float
    reported: float
    spent: float
    patient: float | None
    auroc: list[float]
    delta: float = DELTA
    adjacency: str = ADJACENCY


def configured(settings: Mapping[str, Any], noise: float, **more: Any) -> ConfigRecord:
    return ConfigRecord({**settings, **more, "noise": noise, "delta": DELTA})


def samples_of(paths: Sequence[Path], sample: str) -> int:
    return _samples(tuple(map(str, paths)), sample)


@lru_cache(maxsize=1000)
def _samples(paths: tuple[str, ...], sample: str) -> int:
    return len(by_hand_app.read_rows(list(paths), sample))


def steps_and_rate(samples: int, settings: Mapping[str, Any]) -> tuple[int, float]:
    """A round's steps, and Opacus' sampling rate, which is one over the batches of an epoch."""
    batches = -(-samples // int(settings["batch-size"]))
    return int(settings["local-epochs"]) * batches, 1 / batches


def patient_epsilon(noise: float, rate: float, steps: int, rows: int) -> float:
    """What a patient of so many rows spends at least at DELTA where each row is sampled and clipped alone.

    As accounting by rows does, it takes the worst gradients: here a patient's rows all point one way. The
    sum of all releases is then N(0, s^2) without the patient and Binomial(rows * steps, rate) + N(0, s^2)
    with, s = noise * sqrt(steps), and epsilon at least log((TPR - delta) / FPR) of the best threshold on it
    (Kairouz et al. 2015, arXiv:1311.0776). Of 80 to 300 times a clip as noise, PLD of the mixture of
    Gaussians (dp-accounting) is 0.01 % above it.
    """
    low, high = binom.ppf([1e-13, 1 - 1e-13], rows * steps, rate)
    drawn = np.arange(low, high + 1)
    chance, spread = binom.pmf(drawn, rows * steps, rate), noise * np.sqrt(steps)
    thresholds = np.linspace(0, high + 6 * spread, 500)
    found = np.array([chance @ norm.sf(threshold, drawn, spread) for threshold in thresholds])
    with np.errstate(divide="ignore"):
        bounds = np.log(np.maximum(found - DELTA, 0)) - norm.logsf(thresholds, 0, spread)
    return float(bounds.max())


def by_hand(cohort: Cohort, name: str, config: ConfigRecord, rounds: int, repeats: int) -> Way:
    """Train ``repeats`` times as one would by hand, from every site in each round."""
    aurocs = []
    for _ in range(repeats):
        grid = Grid(cohort.sites)
        result = by_hand_app.serve(grid, len(FEATURES), config, rounds=rounds)
        aurocs.append(cohort.auroc(_score(cohort, result.arrays)))
    reported = max(float(reply["metrics"]["epsilon"]) for reply in grid.replies)
    spent, sample = cohort.spent(config, rounds), str(config["sample"])
    patient = cohort.patient_spent(config, rounds) if sample == "row" else spent
    return Way(name, sample, GAUSSIAN, float(config["noise"]), reported, spent, patient, aurocs)


def ways(cohort: Cohort, rounds: int, repeats: int) -> Iterator[Way]:
    """By hand, with EPSILON for a message and for all rounds, a row and a patient; Flower's; Cordon's."""
    rows, patients = (
        min(samples_of(paths, sample) for paths in cohort.sites.values()) for sample in ("row", "patient")
    )

    def noise(settings: Mapping[str, Any], samples: int, messages: int) -> float:
        config = configured(settings, 0.0)
        return by_hand_app.noise_for(EPSILON, DELTA, samples, config, messages=messages)

    def over(multiplier: float) -> float:
        return cohort.patient_spent(configured(ROWS, multiplier), rounds) - EPSILON

    enough = float(brentq(over, 1, 5000, rtol=1e-4))
    for name, config in (
        ("by hand, rows, epsilon for each message", configured(ROWS, noise(ROWS, rows, 1))),
        ("by hand, rows, epsilon for the run", configured(ROWS, noise(ROWS, rows, rounds))),
        ("by hand, rows, noise enough for a patient", configured(ROWS, enough)),
        ("by hand, patients, epsilon for the run", configured(PATIENTS, noise(PATIENTS, patients, rounds))),
    ):
        yield by_hand(cohort, name, config, rounds, repeats)
    yield flowers(cohort, rounds, repeats)
    yield cordons(cohort, rounds, repeats)


def flowers(cohort: Cohort, rounds: int, repeats: int) -> Way:
    """Flower's central privacy: sites train without noise; the server clips their updates and adds it."""
    from flwr.serverapp import NeighboringRelation, PrivacyConfig, RdpAccountant, SamplingMethod
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

    relation, sampling = NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION
    sites = len(cohort.sites)
    noise = calibrate_noise(epsilon=EPSILON, delta=DELTA, sampling_rate=1.0, steps=rounds)
    config, aurocs = configured(ROWS, 0.0, **{"equal-weights": True}), []
    for _ in range(repeats):
        accountant = RdpAccountant(PrivacyConfig(DELTA, sites, relation, sampling))
        strategy = DifferentialPrivacyServerSideFixedClipping(
            FedAvg(fraction_evaluate=0.0), noise, SITE_CLIP, sites, accountant=accountant
        )
        grid = Grid(cohort.sites)
        result = by_hand_app.serve(grid, len(FEATURES), config, rounds=rounds, strategy=strategy)
        aurocs.append(cohort.auroc(_score(cohort, result.arrays)))
    spent = epsilon_rdp([Event(noise, 1.0, rounds)], DELTA)
    reported = accountant.get_privacy_spent().epsilon
    return Way("Flower's central privacy", "site", "Gaussian", noise, reported, spent, None, aurocs)


def plan_of(rounds: int) -> Plan:
    """The demo's plan."""
    return Plan.calibrated(
        run="", model="logistic", unit="patient", epsilon=EPSILON, delta=DELTA, rounds=rounds, local_steps=10,
        sampling_rate=0.5, clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=256,
        averaged_rounds=min(5, rounds),
    )  # fmt: skip


def cordons(cohort: Cohort, rounds: int, repeats: int) -> Way:
    plan, units = plan_of(rounds), cohort.units("patient")
    declared = {site: len(paths) for site, paths in cohort.sites.items()}
    models = [Model(plan.model, FEATURES, federated(plan, units, declared)) for _ in range(repeats)]
    spent = epsilon_rdp([plan.event] * rounds, DELTA)
    aurocs = [cohort.auroc(model.score(cohort.features)) for model in models]
    return Way("Cordon", "patient", plan.event.mechanism, plan.noise_multiplier, spent, spent, spent, aurocs)


def lines(way: Way) -> str:
    """One way; every epsilon with its unit, delta, mechanism and adjacency."""
    means = Guarantee(way.unit, DELTA, way.mechanism)
    median, low, high = np.median(way.auroc), min(way.auroc), max(way.auroc)
    found = [
        f"{way.name}: AUROC {median:.4f} ({low:.4f} to {high:.4f}), noise multiplier {way.noise:.3g}",
        f"    reported: {means.statement(way.reported)}",
        f"    spent: {means.statement(way.spent)}",
    ]
    if way.unit == "row":
        least = replace(means, unit="patient").statement(way.patient or 0.0, ROUND_FLOOR)
        found.append(f"    spent, at least: {least}")
    return "\n".join(found)


def quiet() -> None:
    """Flower and Opacus log what they do; and a message of Flower's belongs to a task."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    for name in ("flwr", "opacus"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _score(cohort: Cohort, arrays: ArrayRecord) -> np.ndarray:
    """The log odds [n] of the held-out rows, but for a constant."""
    return cohort.features @ arrays["weight"].numpy()[0]


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held_out", default=2, show_default=True, help="Last patients of each site, for testing.")
@click.option("--rounds", default=10, show_default=True)
@click.option("--repeats", default=10, show_default=True, help="Trainings of each way, each with new noise.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of ways.")
def main(tables: tuple[Path, ...], held_out: int, rounds: int, repeats: int, as_json: bool) -> None:
    """Print for each way to train AUROC on held-out patients, epsilon as reported, and epsilon as spent."""
    quiet()
    cohort, found = Cohort.read(tables, held_out), []
    for way in ways(cohort, rounds, repeats):
        found.append(asdict(way))
        if not as_json:
            click.echo(lines(way))
    if as_json:
        click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
