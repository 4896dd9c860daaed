#!/usr/bin/env python3
"""How many patients a consortium needs: accuracy on held-out patients by patients a site, epsilon and start.

    python benchmarks/patients.py results/variants/*.parquet

Patients are whole: all labelled rows of one are one unit. Where a cohort has fewer than asked for, they are
drawn with replacement: the noise is as small as that many patients make it, and they teach no more than the
cohort's own, so that for large numbers the figures are too low rather than too high. Trains as a run does, by
its defaults, without the network.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import roc_auc_score

from cohort import PUBLIC_START, federated, held_out_rows, planned
from cordon.model.released import Model
from cordon.training.pretrain import WELL, fit, read_public
from cordon.training.units import Units
from cordon.variants.caller_scores import caller_scores
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, matrix, read_table

Patient = tuple[np.ndarray, np.ndarray]


def patients_of(tables: list[Path]) -> dict[str, list[Patient]]:
    """Features [n, F] and labels [n] of each patient, by site."""
    found: dict[str, list[Patient]] = defaultdict(list)
    for path in tables:
        table = read_table(path, LABELLED)
        rows = table.filter(table["label"].is_valid())
        own = matrix(rows), rows["label"].to_numpy().astype(np.float32)
        found[table.column("site")[0].as_py()].append(own)
    return found


def drawn(patients: list[Patient], count: int, random: np.random.Generator) -> Units:
    """``count`` patients: those that there are, and more of them again."""
    order = random.permutation(len(patients)).tolist()
    order += random.integers(len(patients), size=max(0, count - len(order))).tolist()
    chosen = [patients[place] for place in order[:count]]
    names = [f"p{number}" for number, (_, labels) in enumerate(chosen) for _ in labels]
    features, labels = (np.concatenate(part) for part in zip(*chosen, strict=True))
    return Units.group(features, labels, names, unit="patient")


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held_out", default=2, show_default=True, help="Last patients of each site, for testing.")
@click.option("--patients", default="4,8,16,30,60,120", show_default=True, help="Of each site.")
@click.option("--epsilons", default="1,3,8", show_default=True)
@click.option("--repeats", default=10, show_default=True, help="Trainings, each of other patients and noise.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(
    tables: tuple[Path, ...], held_out: int, patients: str, epsilons: str, repeats: int, as_json: bool
) -> None:
    """Print AUROC, and the false alleles removed where 99 % of the real ones are kept, with their ranges."""
    by_site: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(tables):
        by_site[read_table(path, LABELLED).column("site")[0].as_py()].append(path)
    testing = held_out_rows([path for paths in by_site.values() for path in paths[-held_out:]])
    features, real = matrix(testing), testing.column("label").to_numpy() == 1
    cohort = patients_of([path for paths in by_site.values() for path in paths[:-held_out]])
    public, random = read_public(PUBLIC_START), np.random.default_rng(1)
    rows: list[dict[str, Any]] = []

    def tell(name: str, scores: list[np.ndarray], **about: Any) -> None:
        aurocs = [float(roc_auc_score(real, score)) for score in scores]
        removed = [float((score[~real] < np.quantile(score[real], 0.01)).mean()) for score in scores]
        rows.append({"way": name, **about, "auroc": aurocs, "removed": removed})
        if not as_json:
            shown = "  ".join(
                f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
                for values in (aurocs, removed)
            )
            click.echo(f"{name:32s} {shown}")

    for name, score in caller_scores(testing).items():
        tell(name, [score])
    tell("public start", [public.score(features)])
    everybody = [np.concatenate(part) for part in zip(*chain(*cohort.values()), strict=True)]
    tell("pooled, no noise", [Model("mlp", FEATURES, fit("mlp", *everybody, length=WELL)).score(features)])
    for start in (public, None):
        for epsilon in map(float, epsilons.split(",")):
            for count in map(int, patients.split(",")):
                declared = dict.fromkeys(cohort, count)
                given = {
                    "model": "mlp", "unit": "patient", "epsilon": epsilon, "delta": 1e-5,
                    "sampling_rate": 0.5, "max_variants_per_patient": 256,
                }  # fmt: skip
                plan = planned(given, declared, start)
                scores = []
                for _ in range(repeats):
                    sites = {site: drawn(own, count, random) for site, own in cohort.items()}
                    end = federated(plan, sites, declared, start.parameters if start else None)
                    scores.append(Model("mlp", FEATURES, end).score(features))
                origin = "public" if start else "cold"
                about = {"start": origin, "epsilon": epsilon, "patients": count}
                tell(f"{origin}, epsilon {epsilon:g}, {count} a site", scores, **about)
    if as_json:
        click.echo(json.dumps(rows))


if __name__ == "__main__":
    main()
