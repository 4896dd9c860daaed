#!/usr/bin/env python3
"""Calibrate a released model's scores to a site's own labelled alleles."""

from dataclasses import asdict

import click

from cordon.calibration import calibrate_tables, write_calibration
from cordon.commands import EXISTING, OUTPUT, Facts, command
from cordon.progress import shown
from cordon.tables import LABELLED, for_model, inputs, read_batches, rows_of


@command()
@click.option("--model", "model_path", type=EXISTING, required=True, help="Released model (safetensors).")
@click.option(
    "--variants", type=EXISTING, multiple=True, help="Labelled table (Parquet) of a sample; repeatable."
)
@click.option("--site", required=True, help="Whose alleles these are.")
@click.option("--output", type=OUTPUT, required=True, help="Calibration (JSON) to write.")
def main(model_path: str, variants: tuple[str, ...], site: str, output: str) -> Facts:
    """Calibrate a released model's scores to a site's own labelled alleles."""
    from cordon import model as models

    scorer = models.load(model_path)
    schema = for_model(LABELLED, scorer.architecture)
    with shown("scoring labelled alleles", sum(map(rows_of, variants)), "alleles") as tick:
        batches = (batch for path in variants for batch in read_batches(path, schema, tick))
        labelled = ((inputs(batch, scorer.architecture), batch["label"].to_pylist()) for batch in batches)
        calibration = calibrate_tables(scorer, labelled, site)
    write_calibration(calibration, output)
    if calibration.reason:
        click.echo(f"warning: not calibrated: {calibration.reason}; scores stay the model's own", err=True)
    told = (
        f"site {site}: slope {calibration.slope:.3g}, intercept {calibration.intercept:.3g} "
        f"from {calibration.rows} labelled alleles"
    )
    return Facts({"site": site} | asdict(calibration), [told])


if __name__ == "__main__":
    main()
