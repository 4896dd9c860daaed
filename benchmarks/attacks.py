#!/usr/bin/env python3
"""Which dishonest sites the aggregator's audit finds, how soon, and how often it takes an honest one for one.

    python benchmarks/attacks.py --calls haplotypecaller=HC.vcf.gz --truth TRUTH.vcf.gz --sample NA12878

Simulated runs with the real training, audit and averaging, without the network: calls with a truth set are
dealt by 50 kb blocks to ``--sites`` sites, anew in every run; the first ones are dishonest. AUROC is on the
calls themselves, to compare runs with and without an attack, not to say how good a model is.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import roc_auc_score

from cordon.calls.read import parse_calls
from cordon.federation.aggregator.judge import Auditor
from cordon.federation.averaging import RULES, combine, mean_of
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import Judgement
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.training.dpsgd import train
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from hostile import TRAINING, UPDATES
from utility import Data, read

SETTINGS: dict[str, Any] = {
    "model": "mlp", "unit": "variant", "epsilon": 3.0, "delta": 1e-5, "rounds": 10, "local_steps": 10,
    "sampling_rate": 0.5, "clip_norm": 2.0, "learning_rate": 2.0, "averaged_rounds": 5,
    "max_variants_per_patient": 1,
}  # fmt: skip


def simulate(
    data: Data, plan: Plan, behaviour: str, dishonest: int, seed: int, sites: int
) -> tuple[dict[str, int], float]:
    """The round in which each quarantined site was, and the AUROC of the model in the end."""
    blocks, codes = np.unique(data.block, return_inverse=True)
    site_of = np.random.default_rng(seed).permutation(blocks.size)[codes] % sites
    units = [
        Units.group(
            data.features[at], data.real[at].astype(np.float32), data.block[at].tolist(), unit=plan.unit
        )
        for at in (site_of == number for number in range(sites))
    ]
    enrolled = [Site(f"site{n}", len(own), 1.0, f"key {n}") for n, own in enumerate(units)]
    parameters, models = initial_parameters(plan.model, len(FEATURES)), []
    first: dict[int, Parameters] = {}
    ended: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        auditor = Auditor(plan, ChainedLog(Path(folder) / "ledger.sqlite"), expected=parameters)
        for number in range(1, plan.rounds + 1):
            answers = {}
            for place, site in enumerate(enrolled):
                if site.name in ended:
                    continue
                settings = plan.settings_for(site.declared_patients)
                if place < dishonest and behaviour in TRAINING:
                    settings = TRAINING[behaviour](settings)
                update = train(plan.model, parameters, units[place], settings).update
                honest = first.setdefault(place, update)
                if place < dishonest and behaviour in UPDATES:
                    update = UPDATES[behaviour](update, honest)
                answers[site] = Reply(ReplyStatus.TRAINED, plan.run, number, plan.event, update), ""
            decisions = auditor.judge(number, answers)
            taken = {}
            for site, decision in zip(answers, decisions, strict=True):
                if decision.decision == Judgement.QUARANTINED:
                    ended[site.name] = number
                elif decision.decision == Judgement.ACCEPTED:
                    taken[site.name] = answers[site][0].update
            weights = dict.fromkeys(taken, 1.0)
            parameters = combine(plan.aggregation, parameters, taken, weights, malicious=plan.malicious_sites)
            models.append(parameters)
    final = Model(plan.model, FEATURES, mean_of(models[-plan.averaged_rounds :]))
    return ended, float(roc_auc_score(data.real, final.score(data.features)))


@click.command()
@click.option("--calls", required=True, help="caller=VCF.")
@click.option("--truth", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--sample", required=True)
@click.option("--sites", default=7, show_default=True)
@click.option("--dishonest", default="1,2", show_default=True, help="Numbers of dishonest sites.")
@click.option("--runs", default=200, show_default=True, help="Runs without an attack.")
@click.option("--attacked_runs", default=20, show_default=True, help="Runs of each attack.")
@click.option("--set", "changes", multiple=True, help="name=value of the plan, e.g. --set optimiser=adam.")
@click.option("--aggregation", type=click.Choice(tuple(RULES)), default="mean", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(
    calls: str, truth: Path, sample: str, sites: int, dishonest: str, runs: int, attacked_runs: int,
    changes: tuple[str, ...], aggregation: str, as_json: bool,
) -> None:  # fmt: skip
    """Print for each attack: sites found, in which round, honest sites taken for dishonest, AUROC lost."""
    settings = dict(SETTINGS)
    for change in changes:
        name, _, value = change.partition("=")
        settings[name] = type(settings.get(name, ""))(value)
    plan = replace(Plan.calibrated(**settings), run="benchmark", aggregation=aggregation)
    with tempfile.TemporaryDirectory() as scratch:
        caller, vcf = next(iter(parse_calls([calls]).items()))
        data = read(caller, vcf, truth, None, sample, None, Path(scratch), [vcf, truth])
    rows: list[dict[str, Any]] = []
    honest = 0.0
    numbers = [int(number) for number in dishonest.split(",")]
    cases = [("none", 0)] + [(name, n) for name in (*TRAINING, *UPDATES) for n in numbers]
    for behaviour, count in cases:
        repeats = attacked_runs if count else runs
        bearing = plan if aggregation == "mean" else replace(plan, malicious_sites=count)
        found, falsely, when, aurocs = 0, 0, [], []
        for seed in range(repeats):
            ended, auroc = simulate(data, bearing, behaviour, count, seed, sites)
            caught = [ended[f"site{n}"] for n in range(count) if f"site{n}" in ended]
            found, falsely = found + len(caught), falsely + len(ended) - len(caught)
            when += caught
            aurocs.append(auroc)
        median = float(np.median(aurocs))
        honest = honest or median
        row = {
            "behaviour": behaviour, "dishonest": count, "sites": sites, "runs": repeats,
            "found": found / (count * repeats) if count else None,
            "round_found": float(np.median(when)) if when else None,
            "false_quarantine": falsely / ((sites - count) * repeats), "auroc": median,
            "auroc_lost": honest - median,
        }  # fmt: skip
        rows.append(row)
        if not as_json:
            share = "" if row["found"] is None else f"found {row['found']:6.1%} (round {row['round_found']})"
            click.echo(
                f"{behaviour:16s} {count} of {sites}  {share:28s} false {row['false_quarantine']:6.2%}  "
                f"AUROC {median:.4f} ({-row['auroc_lost']:+.4f})"
            )
    if as_json:
        click.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
