#!/usr/bin/env python3
"""Put the parts of a caller's VCF together."""

import click

from cordon.calls.gather import gather_calls
from cordon.console.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.console.progress import shown


@command()
@click.option(
    "--vcf", type=EXISTING, multiple=True, required=True, help="A part; repeatable, in genome order."
)
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
def main(vcf: tuple[str, ...], output: str) -> Facts:
    """Put the parts of a caller's VCF together."""
    records = gather_calls(vcf, output, steps=shown)
    told = "{output}: {records} records of {parts} parts"
    return facts(told, output=output, records=records, parts=len(vcf))


if __name__ == "__main__":
    main()
