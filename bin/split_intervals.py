#!/usr/bin/env python3
"""Write where to call as BEDs of nearly equal callable length."""

import click

from cordon.commands import EXISTING, OUTPUT, reports_errors
from cordon.contigs import read_aliases
from cordon.intervals import split_intervals


@click.command()
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--intervals", type=EXISTING, help="BED that limits the calling.")
@click.option("--aliases", type=EXISTING, help="Table of contig names (TSV).")
@click.option("--parts", type=click.IntRange(1, 9999), help="By default one for each 50 Mb begun.")
@click.option(
    "--outdir", type=click.Path(file_okay=False), required=True, help="Where 0001.bed and so on go."
)
@click.option("--whole", type=OUTPUT, help="BED of all parts together to write.")
@reports_errors
def main(
    reference: str,
    intervals: str | None,
    aliases: str | None,
    parts: int | None,
    outdir: str,
    whole: str | None,
) -> None:
    """Write where to call as BEDs of nearly equal callable length."""
    made = split_intervals(
        reference=reference,
        intervals=intervals,
        aliases=read_aliases(aliases),
        parts=parts,
        outdir=outdir,
        whole=whole,
    )
    lengths = [part.length for part in made]
    click.echo(f"{len(made)} parts of {min(lengths):,} to {max(lengths):,} bp, {sum(lengths):,} bp in all")


if __name__ == "__main__":
    main()
