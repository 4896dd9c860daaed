#!/usr/bin/env python3
"""Score a sample's candidates with a released model and write them as a filtered VCF."""

import click

from cordon.calibration import read_calibration
from cordon.calls import parse_calls
from cordon.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.progress import shown
from cordon.scoring import score_file, write_scored
from cordon.tables import write_table


@command()
@click.option("--model", "model_path", type=EXISTING, required=True, help="Released model (safetensors).")
@click.option("--calibration", "calibration_path", type=EXISTING, required=True, help="Calibration (JSON).")
@click.option("--variants", type=EXISTING, required=True, help="Variant table, labelled or not.")
@click.option("--calls", multiple=True, required=True, help="caller=normalised.vcf.gz; repeatable.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--sample", required=True, help="The sample's name in the files.")
@click.option(
    "--truth_sensitivity", type=float, default=0.99, show_default=True, help="Share of real alleles to keep."
)
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
@click.option("--table", type=OUTPUT, help="Scored table (Parquet) to write.")
def main(
    model_path: str,
    calibration_path: str,
    variants: str,
    calls: tuple[str, ...],
    reference: str,
    sample: str,
    truth_sensitivity: float,
    output: str,
    table: str | None,
) -> Facts:
    """Score a sample's candidates with a released model and write them as a filtered VCF."""
    from cordon import model as models

    model, calibration = models.load(model_path), read_calibration(calibration_path)
    sensitivity = f"{truth_sensitivity:g}"
    scored = score_file(model, calibration, variants, truth_sensitivity=sensitivity, steps=shown)
    passing = write_scored(
        scored,
        model=model,
        calibration=calibration,
        calls=parse_calls(calls),
        reference=reference,
        sample=sample,
        truth_sensitivity=sensitivity,
        output=output,
        steps=shown,
    )
    if table:
        write_table(scored, table)
    told = "{sample}: {passing} of {candidates} candidates pass"
    return facts(told, sample=sample, passing=passing, candidates=scored.num_rows)


if __name__ == "__main__":
    main()
