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
from typing import Any

import click
import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from cordon.auditing.replay import replay
from cordon.federation import defaults
from cordon.federation.plan import Plan, Site
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.training.pretrain import read_public
from cordon.training.units import Units
from cordon.variants.caller_scores import caller_scores
from cordon.variants.features import FEATURES
from cordon.variants.strata import strata as strata_of
from cordon.variants.table import LABELLED, matrix, read_table

PUBLIC_START = Path(__file__).parents[1] / "assets" / "public" / "mlp.safetensors"


def held_out_rows(paths: list[Path]) -> pa.Table:
    """The labelled rows of the held-out tables, as one table."""
    tables = [read_table(path, LABELLED).replace_schema_metadata(None) for path in paths]
    table = pa.concat_tables(tables)
    return table.filter(table.column("label").is_valid())


def federated(
    plan: Plan, sites: dict[str, Units], declared: dict[str, int], start: Parameters | None = None
) -> Parameters:
    """The parameters after all rounds with every site in each."""
    return replay(plan, sites, declared, start or initial_parameters(plan.model, len(FEATURES))).model


def planned(given: dict[str, Any], declared: dict[str, int], start: Model | None) -> Plan:
    """The plan that a run makes of what is ``given``."""
    sites = [Site(name, patients, 1.0) for name, patients in declared.items()]
    said = {name: value for name, value in given.items() if value is not None}
    chosen = defaults.defaults(said["unit"], start=start is not None, rounds=said.get("rounds"))
    begun = {} if start is None else {"model": start.architecture, "start": start.hash}
    plan = Plan.calibrated(run="benchmark", **({"learning_rate": 1.0} | chosen | said | begun))
    return plan if "learning_rate" in said else defaults.with_learning_rate(plan, sites)


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held_out", default=2, show_default=True, help="Last patients of each site, for testing.")
@click.option("--repeats", default=10, show_default=True)
@click.option("--pretrained", default=str(PUBLIC_START), show_default=True, help="Public model, or none.")
@click.option("--model", default="mlp", show_default=True, help="Without a public one.")
@click.option("--unit", default="patient", show_default=True)
@click.option("--epsilon", default=8.0, show_default=True)
@click.option("--delta", default=1e-5, show_default=True)
@click.option("--rounds", type=int, help="[default: as a run's, as all that follow]")
@click.option("--local_steps", type=int)
@click.option("--sampling_rate", default=0.5, show_default=True)
@click.option("--clip_norm", type=float)
@click.option("--learning_rate", type=float)
@click.option("--optimiser", default="sgd", show_default=True)
@click.option("--averaged_rounds", type=int)
@click.option("--max_variants_per_patient", default=256, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def main(
    tables: tuple[Path, ...], held_out: int, repeats: int, pretrained: str, as_json: bool, **settings: Any
) -> None:
    """Print AUROC on held-out patients of callers, the start, sites alone and the federation."""
    by_site: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(tables):
        by_site[read_table(path, LABELLED).column("site")[0].as_py()].append(path)
    training = {site: paths[:-held_out] for site, paths in by_site.items()}
    testing = held_out_rows([path for paths in by_site.values() for path in paths[-held_out:]])
    features, labels = matrix(testing), testing.column("label").to_numpy()
    declared = {site: len(paths) for site, paths in training.items()}
    start = None if pretrained == "none" else read_public(Path(pretrained))
    plan = planned(settings, declared, start)
    units = {site: Units.read(paths, unit=plan.unit) for site, paths in training.items()}
    strata = {"all": np.ones(len(labels), bool)} | {
        name: rows for _, name, rows in strata_of(testing) if name in ("indel", "homopolymer")
    }
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in strata})

    def judge(name: str, scores: np.ndarray) -> None:
        for stratum, rows in strata.items():
            figures[name][stratum].append(float(roc_auc_score(labels[rows], scores[rows])))

    def train(sites: dict[str, Units]) -> np.ndarray:
        parameters = federated(plan, sites, declared, start.parameters if start else None)
        return Model(plan.model, FEATURES, parameters).score(features)

    for name, scores in caller_scores(testing).items():
        judge(name, scores)
    if start is not None:
        judge("public start", start.score(features))
    for _ in range(repeats):
        judge("federated", train(units))
        for site in units:
            judge(f"{site} alone", train({site: units[site]}))
    if as_json:
        click.echo(json.dumps({"plan": plan.to_dict(), "auroc": figures}))
        return
    click.echo(f"{plan.statement(plan.epsilon)}, noise multiplier {plan.noise_multiplier:.3f}")
    click.echo(defaults.reasons(plan, [Site(name, count, 1.0) for name, count in declared.items()]))
    for name, by_stratum in figures.items():
        told = "  ".join(
            f"{stratum} {np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
            for stratum, values in by_stratum.items()
        )
        click.echo(f"{name:24s} {told}")


if __name__ == "__main__":
    main()
