#!/usr/bin/env python3
"""What attacks learn from a training on real calls: members, rows and carriers, without DP and with it.

    python benchmarks/privacy_attacks.py --calls haplotypecaller=HC.vcf.gz --truth TRUTH.vcf.gz --sample NAME

One site trains alone, which is the worst case, on as few units as ``--variants`` says or on all of its 50 kb
blocks, which stand for patients. Membership: each unit is in by a fair coin. Carriers: the ``--rare`` rows
that are farthest from others come and go, all else stays. Both are seen by the view of the released model,
and by that of all updates. Inversion: sites of 1, 4 and 16 rows, from one round's update (one step's, where
not private) after a warm start on the half of the blocks that are public. Intervals are of 95 %.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from cordon.auditing.attack_scores import Estimate, TruePositiveRate
from cordon.auditing.canaries import audit_one_run
from cordon.auditing.carriers import CarrierResult, probe, rarest
from cordon.auditing.inversion import METHODS, invert
from cordon.auditing.membership import MembershipResult, attack, claim
from cordon.auditing.shadows import VIEWS, Shadowing, declared_for, unprotected
from cordon.auditing.step_bound import audit_step
from cordon.calls.read import parse_calls
from cordon.federation.plan import Plan
from cordon.model.devices import THREADS_VARIABLE, thread_count
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.guarantee import Guarantee
from cordon.training.pretrain import fit
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from utility import DELTA, Data, read

# The settings of docs/utility.md; without privacy the same ones, less noise and clip.
COMMON: dict[str, Any] = {
    "model": "mlp", "delta": DELTA, "rounds": 20, "local_steps": 10, "sampling_rate": 0.5,
    "optimiser": "adam", "averaged_rounds": 10,
}  # fmt: skip
BY_UNIT: dict[str, dict[str, Any]] = {
    "variant": {"clip_norm": 2.0, "learning_rate": 0.02, "max_variants_per_patient": 1},
    "patient": {"clip_norm": 0.05, "learning_rate": 0.005, "max_variants_per_patient": 256},
}
START = initial_parameters("mlp", len(FEATURES))
ROWS = (1, 4, 16)
CANARIES = 1000


def grouped(data: Data, rows: np.ndarray, unit: str) -> Units:
    features, real = data.features[rows], data.real[rows].astype(np.float32)
    return Units.group(features, real, data.block[rows].tolist(), unit=unit)


def cases(unit: str, epsilons: list[float]) -> Iterator[tuple[float | None, Plan]]:
    """Without privacy first; its plan's own epsilon is not used."""
    for epsilon in (None, *epsilons):
        yield epsilon, Plan.calibrated(unit=unit, epsilon=epsilon or epsilons[0], **COMMON, **BY_UNIT[unit])


def members(
    data: Data, unit: str, epsilons: list[float], variants: int, **how: Any
) -> Iterator[dict[str, Any]]:
    """Membership of the units, and carriers of the rarest rows among them."""
    random = np.random.default_rng(how["seed"])
    everything = np.arange(len(data.real))
    rows = everything if unit == "patient" else np.sort(random.choice(everything, variants, replace=False))
    units = grouped(data, rows, unit)
    rare = how.pop("rare")
    for epsilon, plan in cases(unit, epsilons):
        for what in ("membership", "carrier"):
            began = time.monotonic()
            declared = declared_for(plan, len(units) / (2 if what == "membership" else 1))
            bare = None if epsilon else unprotected(plan, declared, START, threads=how["threads"])
            shadowing = Shadowing(trainer=bare, **how)
            found: list[Any]
            if what == "membership":
                found = attack(plan, units, declared, START, shadowing)
            else:
                found = probe(plan, units, rarest(units, rare), declared, START, shadowing)
            seconds = time.monotonic() - began
            for result in found:
                yield {
                    "what": what,
                    "epsilon": epsilon,
                    **result.to_dict(),
                    "seconds": seconds,
                    "result": result,
                }


def inversions(
    data: Data, unit: str, epsilons: list[float], repeats: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of the private half of the blocks, reconstructed with what the public half tells."""
    names, codes = np.unique(data.block, return_inverse=True)
    public = (np.random.default_rng(seed).permutation(names.size) % 2 == 0)[codes]
    known, hidden = (grouped(data, np.flatnonzero(half), "variant") for half in (public, ~public))
    with thread_count(1):
        warm = fit("mlp", known.features, known.labels)
    for epsilon, plan in cases(unit, epsilons):
        for rows in ROWS:
            for method in METHODS:
                result = invert(
                    plan, hidden, known, warm, rows=rows, protected=epsilon is not None, method=method,
                    repeats=repeats, seed=seed, threads=1,
                )  # fmt: skip
                yield {"what": "inversion", "epsilon": epsilon, **result.to_dict(), "result": result}


def bounds(data: Data, unit: str, epsilons: list[float], seed: int, threads: int) -> Iterator[dict[str, Any]]:
    """Lower bounds of epsilon, from single steps and from one run with canaries of known gradients."""
    units = grouped(data, np.arange(len(data.real)), unit)
    for epsilon, plan in list(cases(unit, epsilons))[1:]:
        declared = declared_for(plan, len(units) + CANARIES / 2)
        one_run = audit_one_run(
            plan, units, declared, START, canaries=CANARIES, view="white-box", seed=seed, threads=threads,
            confidence=0.999,
        )  # fmt: skip
        for name, found in (("step bound", audit_step(plan, features=len(FEATURES))), ("one run", one_run)):
            yield {
                "what": "bound", "by": name, "epsilon": epsilon, "privacy": claim(plan), **found.to_dict(),
                "result": found,
            }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    """One line of a result."""
    if row["what"] == "bound":
        bound = Guarantee.of(row).at_least(row["epsilon_lower"], row["confidence"])
        return f"bound       {row['by']:11s} {bound}"
    if row["what"] == "inversion":
        return (
            f"inversion   {row['method']:18s} rows {row['rows']:2d}  error {row['error']:.3f} SD, guess "
            f"{row['baseline']:.3f} SD, ratio {row['result'].ratio}"
        )
    result: MembershipResult | CarrierResult = row["result"]
    line = f"{row['what']:11s} {row['view']:8s}{row['attack']:13s} AUC {result.score.auc}"
    if isinstance(result, CarrierResult):
        return f"{line}  advantage {result.advantage}" if result.advantage else line
    return f"{line}  " + "  ".join(rate(own) for own in result.score.rates)


def rate(own: TruePositiveRate) -> str:
    return f"TPR at {own.fpr:.1%}: {percent(own.tpr) if own.tpr else f'none ({own.reason})'}"


def percent(share: Estimate) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


@click.command()
@click.option("--calls", required=True, help="caller=VCF.")
@click.option("--truth", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--confident", type=click.Path(exists=True, path_type=Path), help="BED; without it everywhere.")
@click.option("--sample", required=True)
@click.option("--reference", type=click.Path(exists=True, path_type=Path))
@click.option("--epsilons", default="8,3,1", show_default=True)
@click.option("--units", default="variant,patient", show_default=True)
@click.option("--shadows", default=40, show_default=True, help="Trainings of each case, each a target.")
@click.option("--variants", default=600, show_default=True, help="Variants of the site, where one is a unit.")
@click.option("--rare", default=20, show_default=True, help="Rare rows that are probed for carriers.")
@click.option("--repeats", default=20, show_default=True, help="Sites that are reconstructed.")
@click.option("--seed", default=0, show_default=True, help="Chooses rows and members; noise is always fresh.")
@click.option("--parts", default="members,inversions,bounds", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(
    calls: str, truth: Path, confident: Path | None, sample: str, reference: Path | None, epsilons: str,
    units: str, shadows: int, variants: int, rare: int, repeats: int, seed: int, parts: str, as_json: bool,
) -> None:  # fmt: skip
    """Print for each unit, epsilon and view what membership, inversion and carrier attacks achieve."""
    with tempfile.TemporaryDirectory() as scratch:
        caller, vcf = next(iter(parse_calls([calls]).items()))
        data = read(caller, vcf, truth, confident, sample, reference, Path(scratch), [vcf, truth])
    wanted = [float(epsilon) for epsilon in epsilons.split(",")]
    threads = int(os.environ.get(THREADS_VARIABLE) or 1)
    table: list[dict[str, Any]] = []
    for unit in units.split(","):
        how = {"shadows": shadows, "views": VIEWS, "seed": seed, "threads": threads, "rare": rare}
        shown: set[tuple[str, float | None]] = set()
        made = {
            "members": members(data, unit, wanted, variants, **how),
            "inversions": inversions(data, unit, wanted, repeats, seed),
            "bounds": bounds(data, unit, wanted, seed, threads),
        }
        for part in (made[name] for name in parts.split(",")):
            for row in part:
                if not as_json:
                    if (row["what"], row["epsilon"]) not in shown:
                        shown.add((row["what"], row["epsilon"]))
                        click.echo(f"unit one {unit}; {spent(row)}")
                    click.echo(f"    {told(row)}")
                del row["result"]
                table.append(row)
    if as_json:
        click.echo(json.dumps(table, indent=1))


def spent(row: dict[str, Any]) -> str:
    if not row["privacy"]:
        return "not private"
    return Guarantee.of(row["privacy"]).statement(row["privacy"]["epsilon"])


if __name__ == "__main__":
    main()
