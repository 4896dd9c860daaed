#!/usr/bin/env python3
"""Write a reference as plain reference.fasta with its .fai and .dict."""

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, command, facts
from cordon.console.progress import shown
from cordon.genome.reference import prepare_reference


@command()
@click.option("--reference", type=EXISTING, required=True, help="FASTA, plain, gzip or bgzip.")
@click.option("--outdir", type=FOLDER, default=".", show_default=True, help="Where they go.")
def main(reference: str, outdir: str) -> Facts:
    """Write a reference as plain reference.fasta with its .fai and .dict."""
    contigs = prepare_reference(reference, outdir, steps=shown)
    bp = sum(contigs.values())
    return facts("reference: {contigs} contigs, {bp:,} bp", contigs=len(contigs), bp=bp)


if __name__ == "__main__":
    main()
