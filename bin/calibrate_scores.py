#!/usr/bin/env python3
"""Calibrate a released model's scores to a site's own labelled alleles, exactly, privately, or not at all."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from cordon.calibration import MODES, NONE, SITE, calibrate_tables, uncalibrated, write_calibration
from cordon.commands import EXISTING, FOLDER, OUTPUT, Facts, command
from cordon.errors import UserError
from cordon.progress import shown
from cordon.tables import LABELLED, for_model, inputs, read_batches, rows_of
from cordon.units import UNITS


@command()
@click.option("--model", "model_path", type=EXISTING, required=True, help="Released model (safetensors).")
@click.option(
    "--variants", type=EXISTING, multiple=True, help="Labelled table (Parquet) of a sample; repeatable."
)
@click.option("--site", required=True, help="Whose alleles these are.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=SITE,
    show_default=True,
    help="site: exact figures of these tables, not private. private: with noise that the ledger records. "
    "none: no figure of any sample.",
)
@click.option("--state", type=FOLDER, help="private: outlives runs, the site's ledger.")
@click.option("--epsilon", type=float, help="private: this site's own budget, over all runs.")
@click.option("--delta", type=float, help="private: of that budget.")
@click.option(
    "--privacy_unit",
    type=click.Choice(UNITS),
    default="patient",
    show_default=True,
    help="private: what it protects.",
)
@click.option("--calibration_epsilon", type=float, help="private: what the calibration may cost of it.")
@click.option(
    "--truth_sensitivity", type=float, default=0.99, show_default=True, help="private: what it is made for."
)
@click.option(
    "--max_variants_per_patient",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="private: what a patient's rows weigh together, at most.",
)
@click.option("--output", type=OUTPUT, required=True, help="Calibration (JSON) to write.")
def main(
    model_path: str, variants: tuple[str, ...], site: str, mode: str, state: str | None,
    epsilon: float | None, delta: float | None, privacy_unit: str, calibration_epsilon: float | None,
    truth_sensitivity: float, max_variants_per_patient: int, output: str,
) -> Facts:  # fmt: skip
    """Calibrate a released model's scores to a site's own alleles: exactly, privately, or not at all."""
    from cordon import model as models

    scorer = models.load(model_path)
    schema = for_model(LABELLED, scorer.architecture)

    def tables() -> Iterator[tuple]:  # type: ignore[type-arg]
        with shown("scoring labelled alleles", sum(map(rows_of, variants)), "alleles") as tick:
            for path in variants:
                for batch in read_batches(path, schema, tick):
                    labels, patients = batch["label"].to_pylist(), batch["patient"].to_pylist()
                    yield inputs(batch, scorer.architecture), labels, patients

    if mode == NONE:
        calibration = uncalibrated(NONE, site)
    elif mode == SITE:
        calibration = calibrate_tables(scorer, (table[:2] for table in tables()), site)
    else:
        from cordon.private_calibration import Settings, calibrate_privately, without_samples
        from cordon.site_ledger import SiteLedger

        if state is None or epsilon is None or delta is None or calibration_epsilon is None:
            raise UserError(
                "a private calibration is paid for. Give --state, --epsilon, --delta, --calibration_epsilon."
            )
        sensitivity = f"{truth_sensitivity:g}"
        settings = Settings(privacy_unit, calibration_epsilon, delta, sensitivity, max_variants_per_patient)
        if variants:
            ledger = SiteLedger(Path(state) / f"{site}.sqlite", epsilon=epsilon, delta=delta)
            calibration = calibrate_privately(scorer, tables, site, settings, ledger)
        else:
            calibration = without_samples(site)
    write_calibration(calibration, output)
    if calibration.reason:
        what = "no threshold was fitted" if calibration.calibrated else "not calibrated"
        click.echo(f"warning: {what}: {calibration.reason}", err=True)
    rows = "" if calibration.rows is None else f" from {calibration.rows} labelled alleles"
    told = (
        f"site {site}: slope {calibration.slope:.3g}, intercept {calibration.intercept:.3g}{rows} "
        f"(calibration: {calibration.origin})"
    )
    return Facts({"site": site} | asdict(calibration) | {"origin": calibration.origin}, [told])


if __name__ == "__main__":
    main()
