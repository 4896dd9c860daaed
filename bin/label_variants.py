#!/usr/bin/env python3
"""Label a sample's candidates as real or false by its truth set and confident regions."""

import click

from cordon.commands import EXISTING, OUTPUT, reports_errors
from cordon.labels import label
from cordon.tables import VARIANTS, read_table, write_table


@click.command()
@click.option("--variants", type=EXISTING, required=True, help="Variant table (Parquet) of one sample.")
@click.option("--truth", type=EXISTING, required=True, help="VCF of the sample's real alleles.")
@click.option("--confident", type=EXISTING, required=True, help="BED of the truth set's confident regions.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--output", type=OUTPUT, required=True, help="Labelled table (Parquet) to write.")
@reports_errors
def main(variants: str, truth: str, confident: str, reference: str, output: str) -> None:
    """Label a sample's candidates as real or false by its truth set and confident regions."""
    table = read_table(variants, VARIANTS)
    labelled = label(table, truth=truth, confident=confident, reference=reference)
    write_table(labelled, output)
    labels = labelled["label"].to_pylist()
    counts = f"{labels.count(1)} real, {labels.count(0)} false, {labels.count(None)} unknown"
    click.echo(f"{variants}: {counts}")


if __name__ == "__main__":
    main()
