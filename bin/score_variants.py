#!/usr/bin/env python3
"""Score samples' candidates with a released model and write each sample's as a filtered VCF."""

from pathlib import Path

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, command, each
from cordon.console.progress import shown
from cordon.scoring.calibration import read_calibration
from cordon.scoring.score import Scoring, read_samples, score_sample
from cordon.variants.strata import GUARDED, strata_named


@command()
@click.option("--model", "model_path", type=EXISTING, required=True, help="Released model (safetensors).")
@click.option("--calibration", "calibration_path", type=EXISTING, required=True, help="Calibration (JSON).")
@click.option(
    "--samples",
    type=EXISTING,
    required=True,
    help="CSV: sample (its name in the files), variants (its table, labelled or not) and calls "
    "(caller=normalised.vcf.gz, several with ; between them).",
)
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option(
    "--truth_sensitivity", type=float, default=0.99, show_default=True, help="Share of real alleles to keep."
)
@click.option(
    "--protect",
    default="",
    help=f"Strata that keep that share for themselves, with commas between: {', '.join(GUARDED)}.",
)
@click.option(
    "--outdir",
    type=FOLDER,
    default=".",
    help="Where SAMPLE.scored.vcf.gz, its .tbi and SAMPLE.scored.parquet go.",
)
def main(
    model_path: str,
    calibration_path: str,
    samples: str,
    reference: str,
    truth_sensitivity: float,
    protect: str,
    outdir: str,
) -> Facts:
    """Score samples' candidates with a released model and write each sample's as a filtered VCF."""
    from cordon.model import released as models

    model, calibration = models.load(Path(model_path)), read_calibration(calibration_path)
    protected = strata_named(protect)
    scoring = Scoring(model, calibration, f"{truth_sensitivity:g}", protected)
    for price in calibration.price(scoring.truth_sensitivity, protected):
        click.echo(price, err=True)
    told = []
    for one in read_samples(Path(samples)):
        passing, rows = score_sample(one, scoring, reference=reference, outdir=Path(outdir), steps=shown)
        told.append({"sample": one.sample, "passing": passing, "candidates": rows})
    return each("samples", "{sample}: {passing} of {candidates} candidates pass", told)


if __name__ == "__main__":
    main()
