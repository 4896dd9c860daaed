#!/usr/bin/env python3
"""Write where to call as BEDs of nearly equal callable length."""

import click

from cordon.console.commands import EXISTING, FOLDER, OUTPUT, Facts, command, facts
from cordon.console.progress import shown
from cordon.genome.contigs import read_aliases
from cordon.genome.intervals import split_intervals


@command()
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--intervals", type=EXISTING, help="BED that limits the calling.")
@click.option("--aliases", type=EXISTING, help="Table of contig names (TSV).")
@click.option("--parts", type=click.IntRange(1, 9999), help="By default one for each 50 Mb begun.")
@click.option("--outdir", type=FOLDER, required=True, help="Where 0001.bed and so on go.")
@click.option("--whole", type=OUTPUT, help="BED of all parts together to write.")
def main(
    reference: str,
    intervals: str | None,
    aliases: str | None,
    parts: int | None,
    outdir: str,
    whole: str | None,
) -> Facts:
    """Write where to call as BEDs of nearly equal callable length."""
    made = split_intervals(
        reference=reference,
        intervals=intervals,
        aliases=read_aliases(aliases),
        parts=parts,
        outdir=outdir,
        whole=whole,
        steps=shown,
    )
    lengths = [part.length for part in made]
    told = "{parts} parts of {shortest:,} to {longest:,} bp, {bp:,} bp in all"
    return facts(told, parts=len(made), shortest=min(lengths), longest=max(lengths), bp=sum(lengths))


if __name__ == "__main__":
    main()
