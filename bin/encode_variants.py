#!/usr/bin/env python3
"""Join the callers' candidates of a sample into one variant table with features."""

import click

from cordon.calls import parse_calls
from cordon.commands import EXISTING, OUTPUT, reports_errors
from cordon.encoding import encode
from cordon.tables import write_table


@click.command()
@click.option("--site", required=True)
@click.option("--patient", required=True)
@click.option("--sample", required=True)
@click.option("--bam", type=EXISTING, required=True, help="Normalised, indexed BAM.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--calls", multiple=True, required=True, help="caller=normalised.vcf.gz, once a caller.")
@click.option("--output", type=OUTPUT, required=True, help="Variant table (Parquet) to write.")
@reports_errors
def main(
    site: str, patient: str, sample: str, bam: str, reference: str, calls: tuple[str, ...], output: str
) -> None:
    """Join the callers' candidates of a sample into one variant table with features."""
    paths = parse_calls(calls)
    table = encode(site=site, patient=patient, sample=sample, bam=bam, reference=reference, calls=paths)
    write_table(table, output)
    click.echo(f"{sample}: {table.num_rows} candidates of {', '.join(sorted(paths))}")


if __name__ == "__main__":
    main()
