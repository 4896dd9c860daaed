#!/usr/bin/env python3
"""What the private model is worth on held-out patients, against callers' scores and against sites alone.

    python benchmarks/cohort.py results/variants/*.parquet --repeats 10

Trains as a run does (the same DP-SGD, accounting and averaging, without the network), again and
again, because one private training is one draw of its noise. A site's last ``--held_out`` tables
are never trained on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from cordon.auditing.replay import replay
from cordon.evaluation.caller_scores import caller_scores
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, matrix, read_table


def held_out_rows(paths: list[Path]) -> pa.Table:
    """The labelled rows of the held-out tables, as one table."""
    tables = [read_table(path, LABELLED).replace_schema_metadata(None) for path in paths]
    table = pa.concat_tables(tables)
    return table.filter(table.column("label").is_valid())


def federated(plan: Plan, sites: dict[str, Units], declared: dict[str, int]) -> Parameters:
    """The parameters after all rounds with every site in each."""
    return replay(plan, sites, declared, initial_parameters(plan.model, len(FEATURES))).model


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held_out", default=2, show_default=True, help="Last patients of each site, for testing.")
@click.option("--repeats", default=10, show_default=True)
@click.option("--model", default="logistic", show_default=True)
@click.option("--unit", default="patient", show_default=True)
@click.option("--epsilon", default=8.0, show_default=True)
@click.option("--delta", default=1e-5, show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--local_steps", default=10, show_default=True)
@click.option("--sampling_rate", default=0.5, show_default=True)
@click.option("--clip_norm", default=0.05, show_default=True)
@click.option("--learning_rate", default=2.0, show_default=True)
@click.option("--optimiser", default="sgd", show_default=True)
@click.option("--averaged_rounds", default=5, show_default=True)
@click.option("--max_variants_per_patient", default=256, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def main(tables: tuple[Path, ...], held_out: int, repeats: int, as_json: bool, **settings: object) -> None:
    """Print AUROC on held-out patients: callers, sites alone, the federation; by repeated training."""
    from sklearn.metrics import roc_auc_score

    by_site: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(tables):
        by_site[read_table(path, LABELLED).column("site")[0].as_py()].append(path)
    training = {site: paths[:-held_out] for site, paths in by_site.items()}
    testing = held_out_rows([path for paths in by_site.values() for path in paths[-held_out:]])
    features, labels = matrix(testing), testing.column("label").to_numpy()
    plan = Plan.calibrated(run="benchmark", **settings)
    units = {site: Units.read(paths, unit=plan.unit) for site, paths in training.items()}
    declared = {site: len(paths) for site, paths in training.items()}

    def auroc(parameters: Parameters) -> float:
        scores = Model(plan.model, FEATURES, parameters).score(features)
        return float(roc_auc_score(labels, scores))

    figures: dict[str, list[float]] = {
        name: [float(roc_auc_score(labels, s))] for name, s in caller_scores(testing).items()
    }
    figures["federated"] = [auroc(federated(plan, units, declared)) for _ in range(repeats)]
    for site in units:
        alone = {site: units[site]}
        figures[f"{site} alone"] = [auroc(federated(plan, alone, declared)) for _ in range(repeats)]
    if as_json:
        click.echo(json.dumps({"plan": plan.to_dict(), "auroc": figures}))
        return
    click.echo(f"{plan.statement(plan.epsilon)}, noise multiplier {plan.noise_multiplier:.3f}")
    for name, values in figures.items():
        click.echo(f"{name:24s} median {np.median(values):.4f}  min {min(values):.4f}  max {max(values):.4f}")


if __name__ == "__main__":
    main()
