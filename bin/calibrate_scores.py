#!/usr/bin/env python3
"""Calibrate a released model's scores to a site's own labelled alleles, exactly, privately, or not at all."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import pyarrow as pa

from cordon.console.commands import EXISTING, FOLDER, OUTPUT, Facts, command
from cordon.console.progress import shown, telling
from cordon.errors import UserError
from cordon.privacy.accountants import ACCOUNTANTS
from cordon.privacy.grouping import UNITS
from cordon.scoring.calibrate import Alleles, calibrate
from cordon.scoring.calibration import MODES, NONE, SITE, uncalibrated, write_calibration
from cordon.variants.same_person import MERGE, WARN, same_people
from cordon.variants.table import LABELLED, VARIANTS, for_model, inputs, read_batches, rows_of


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
    "--accountant", type=click.Choice(ACCOUNTANTS), help="private: what that budget is held against."
)
@click.option(
    "--sites",
    type=EXISTING,
    help="private: sites sheet: site, declared_patients, weight; how many are declared bounds delta.",
)
@click.option(
    "--privacy_unit",
    type=click.Choice(UNITS),
    default="patient",
    show_default=True,
    help="private: what it protects.",
)
@click.option(
    "--sites_per_patient",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="private: sites that one person may be a patient at; what it costs is of them all.",
)
@click.option(
    "--same_person",
    type=click.Choice((WARN, MERGE)),
    default=WARN,
    show_default=True,
    help="private: what to do where two patients seem to be one person: say so, or make their rows one "
    "unit, too.",
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
    epsilon: float | None, delta: float | None, accountant: str | None, sites: str | None,
    privacy_unit: str, sites_per_patient: int, same_person: str, calibration_epsilon: float | None,
    truth_sensitivity: float, max_variants_per_patient: int, output: str,
) -> Facts:  # fmt: skip
    """Calibrate a released model's scores to a site's own alleles: exactly, privately, or not at all."""
    from cordon.model import released as models

    scorer = models.load(Path(model_path))
    schema = for_model(LABELLED, scorer.architecture)

    def tables() -> Iterator[pa.Table]:
        with shown("scoring labelled alleles", sum(map(rows_of, variants)), "alleles") as tick:
            for path in variants:
                yield from read_batches(path, schema, tick)

    def by_patient() -> Iterator[tuple]:  # type: ignore[type-arg]
        for batch in tables():
            labels, patients = batch["label"].to_pylist(), batch["patient"].to_pylist()
            yield inputs(batch, scorer.architecture), labels, patients

    if mode == NONE:
        calibration = uncalibrated(NONE, site)
    elif mode == SITE:
        calibration = calibrate(Alleles.of(scorer, tables()), site)
    else:
        from cordon.federation.plan import find_site
        from cordon.ledger.site import SiteLedger
        from cordon.scoring.private_calibration import Settings, calibrate_privately, without_samples

        if (
            state is None or epsilon is None or delta is None or accountant is None or sites is None
            or calibration_epsilon is None
        ):  # fmt: skip
            raise UserError(
                "a private calibration is paid for. Give --state, --epsilon, --delta, --accountant, --sites, "
                "--calibration_epsilon."
            )
        one_person = same_person if privacy_unit == "patient" else WARN
        settings = Settings(
            privacy_unit, calibration_epsilon, delta, accountant, sites_per_patient, one_person,
            f"{truth_sensitivity:g}", max_variants_per_patient,
        )  # fmt: skip
        if variants:
            declared = find_site(Path(sites), site).declared_patients
            ledger = SiteLedger(Path(state) / f"{site}.sqlite", epsilon=epsilon, delta=delta)
            with telling(None) as tell:
                ids: dict[str, str] = {}
                if privacy_unit == "patient":
                    paths = [Path(path) for path in variants]
                    ids = same_people(paths, merge=same_person == MERGE, say=tell.say, steps=tell.steps)
                named = pa.schema([VARIANTS.field("patient")], metadata=VARIANTS.metadata)
                batches = (batch for path in variants for batch in read_batches(path, named))
                patients = {name for batch in batches for name in batch["patient"].to_pylist()}
                calibration = calibrate_privately(
                    scorer, by_patient, site, settings, ledger, sorted(patients), declared_patients=declared,
                    one_id=ids, say=tell.say,
                )  # fmt: skip
        else:
            calibration = without_samples(site)
    write_calibration(calibration, output)
    if calibration.reason:
        what = "no threshold was fitted" if calibration.calibrated else "not calibrated"
        click.echo(f"warning: {what}: {calibration.reason}", err=True)
    if (stands := calibration.instead) is not None:
        told = f"{stands.stands_for_the_model}. Samples with its calls are filtered by {stands.caller_score}"
        click.echo(f"warning: {told}.", err=True)
    rows = "" if calibration.rows is None else f" from {calibration.rows} labelled alleles"
    drawn = "; ".join(f"{kind}: {curve}" for kind, curve in calibration.curves.items())
    told = f"site {site}: {drawn}{rows} (calibration: {calibration.origin})"
    return Facts({"site": site} | asdict(calibration) | {"origin": calibration.origin}, [told])


if __name__ == "__main__":
    main()
