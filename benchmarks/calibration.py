#!/usr/bin/env python3
"""What a private calibration is worth on patients that it has not seen, beside the exact one and none.

    python benchmarks/calibration.py --patients 10,50,200,500 --epsilons 0.5,1,2

Patients are made up: each has so many candidates, real ones with probability 0.6; their raw scores have a
long tail to the low side, differ from patient to patient, and are off by a slope and an intercept. What is
measured is measured on 2,000 others of the same kind.
"""

from __future__ import annotations

import json

import click
import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.mechanisms import Randomness
from cordon.scoring.calibrate import Alleles, calibrate
from cordon.scoring.calibration import Calibration, Curve, for_both, uncalibrated
from cordon.scoring.private_calibration import Settings, estimate, noisy, sums

TESTED = 2_000


def drawn(random: np.random.Generator, patients: int, rows: int) -> tuple[Floats, NDArray[np.int8]]:
    """Raw scores and labels [patients * rows]; a real allele's log-odds are about 0.7 score + 0.9."""
    size = patients * rows
    real = random.random(size) < 0.6
    tail = random.exponential(1.0, size) * (random.random(size) < 0.3)
    odds = np.where(real, random.normal(3, 2, size) - tail, random.normal(-2, 2, size))
    odds += np.repeat(random.normal(0, 0.3, patients), rows)
    return (odds - 0.8) / 0.7, real.astype(np.int8)


def private(scores: Floats, labels: NDArray[np.int8], rows: int, settings: Settings) -> Calibration:
    """One draw of the calibration that a run would make."""
    owners = np.arange(len(labels)) // (rows if settings.unit == "patient" else 1)
    noise = settings.event.noise_multiplier
    found = estimate(noisy(sums(scores, labels, owners, settings), noise, Randomness()), noise, settings)
    thresholds = {settings.sensitivity: found["threshold"]}
    curve = Curve.line(found["slope"], found["intercept"])
    return for_both(curve, thresholds, "private", "a", reason=found["reason"])


def judged(
    found: list[Calibration], scores: Floats, labels: NDArray[np.int8], sensitivity: str
) -> dict[str, object]:
    """Log-loss (nats a row) and share of the real alleles kept, each median, 5 % and 95 % of ``found``."""
    losses, kept, fitted = [], [], []
    for item in found:
        odds = item.apply(scores, np.zeros(len(scores), np.bool_))
        losses.append(float(np.mean(np.logaddexp(0.0, odds) - labels * odds)))
        fitted.append(item.fitted)
        kept.append(float((odds[labels == 1] >= item.threshold(sensitivity)).mean()))
    shares = np.quantile(
        [share for share, one in zip(kept, fitted, strict=True) if one] or [np.nan], [0.5, 0.05, 0.95]
    )
    spread = np.quantile(losses, [0.5, 0.05, 0.95])
    return {"loss": spread.tolist(), "fitted": float(np.mean(fitted)), "kept": shares.tolist()}


@click.command()
@click.option("--patients", default="10,50,200,500", show_default=True)
@click.option("--epsilons", default="0.5,1,2", show_default=True)
@click.option("--unit", type=click.Choice(("patient", "variant")), default="patient", show_default=True)
@click.option("--delta", default=1e-5, show_default=True)
@click.option("--rows", default=256, show_default=True, help="Candidates of a patient.")
@click.option("--sensitivity", default="0.99", show_default=True)
@click.option("--repeats", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the patients; the noise has none.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def main(
    patients: str, epsilons: str, unit: str, delta: float, rows: int, sensitivity: str, repeats: int,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Print log-loss and kept share on unseen patients by calibration: none, exact, private."""
    random = np.random.default_rng(seed)
    held_out = drawn(random, TESTED, rows)
    made: dict[str, dict[str, object]] = {"none": judged([uncalibrated("none", "a")], *held_out, sensitivity)}
    for count in map(int, patients.split(",")):
        cohorts = [drawn(random, count, rows) for _ in range(repeats)]
        exact = [calibrate(Alleles(*cohort, np.zeros(len(cohort[0]), np.bool_)), "a") for cohort in cohorts]
        made[f"{count} patients, exact"] = judged(exact, *held_out, sensitivity)
        for epsilon in map(float, epsilons.split(",")):
            settings = Settings(unit, epsilon, delta, "rdp", 1, "warn", sensitivity, rows)
            name = f"{count} patients, {Guarantee(unit, delta, GAUSSIAN).statement(epsilon)}"
            found = [private(*cohort, rows, settings) for cohort in cohorts]
            made[name] = judged(found, *held_out, sensitivity)
    if as_json:
        click.echo(json.dumps(made))
        return
    for name, values in made.items():
        loss, kept = ("{:.3f} [{:.3f}, {:.3f}]".format(*values[part]) for part in ("loss", "kept"))
        click.echo(f"{name}: log-loss {loss}; threshold fitted in {values['fitted']:.0%}, keeps {kept}")


if __name__ == "__main__":
    main()
