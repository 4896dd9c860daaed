#!/usr/bin/env python3
"""Put the parts of a caller's VCF together."""

import click

from cordon.commands import EXISTING, OUTPUT, reports_errors
from cordon.gathering import gather_calls


@click.command()
@click.option("--vcf", type=EXISTING, multiple=True, required=True, help="A part; repeat it in genome order.")
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
@reports_errors
def main(vcf: tuple[str, ...], output: str) -> None:
    """Put the parts of a caller's VCF together."""
    records = gather_calls(vcf, output)
    click.echo(f"{output}: {records} records of {len(vcf)} parts")


if __name__ == "__main__":
    main()
