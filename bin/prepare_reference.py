#!/usr/bin/env python3
"""Write a reference as plain reference.fasta with its .fai and .dict."""

import click

from cordon.commands import EXISTING, reports_errors
from cordon.reference import prepare_reference


@click.command()
@click.option("--reference", type=EXISTING, required=True, help="FASTA, plain, gzip or bgzip.")
@click.option("--outdir", type=click.Path(file_okay=False), default=".", show_default=True)
@reports_errors
def main(reference: str, outdir: str) -> None:
    """Write a reference as plain reference.fasta with its .fai and .dict."""
    contigs = prepare_reference(reference, outdir)
    click.echo(f"reference: {len(contigs)} contigs, {sum(contigs.values()):,} bp")


if __name__ == "__main__":
    main()
