#!/usr/bin/env python3
"""Measure scores and filters against the truth of the held-out samples."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.console.commands import EXISTING, OUTPUT, Facts, command
from cordon.evaluation.evaluate import evaluate, read_held_out, write_evaluation


@command()
@click.option(
    "--scores", multiple=True, required=True, type=EXISTING, help="Labelled, scored table; repeat it."
)
@click.option("--output", required=True, type=OUTPUT, help="evaluation.json to write.")
def main(scores: tuple[str, ...], output: str) -> Facts:
    """Measure Cordon, each caller's QUAL and QD, and each filter on held-out samples."""
    result = evaluate(read_held_out([Path(path) for path in scores]))
    write_evaluation(result, Path(output))
    alleles = result["alleles"]
    lines = [
        f"held-out samples: {len(result['samples'])}",
        f"labelled alleles: {alleles['true']} real, {alleles['false']} false",
    ]
    for score in result["scores"]:
        shown = "not defined (one class only)" if score["auroc"] is None else f"{score['auroc']:.4f}"
        lines.append(f"AUROC {score['name']}: {shown}")
    return Facts(result, lines)


if __name__ == "__main__":
    main()
