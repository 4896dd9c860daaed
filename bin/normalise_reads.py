#!/usr/bin/env python3
"""Check a sample's reads, sort them, mark duplicates, index them."""

import click

from cordon.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.progress import shown
from cordon.reads import normalise_reads


@command()
@click.option("--bam", type=EXISTING, required=True, help="BAM or CRAM.")
@click.option("--sample", required=True, help="Sample that the read groups must name.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--aliases", type=EXISTING, help="Table of contig names: one contig a line, tabs between.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For samtools.")
@click.option("--output", type=OUTPUT, required=True, help="BAM to write; its .bai comes beside it.")
def main(bam: str, sample: str, reference: str, aliases: str | None, threads: int, output: str) -> Facts:
    """Check a sample's reads, sort them, mark duplicates, index them."""
    done = normalise_reads(
        bam=bam, sample=sample, reference=reference, output=output, threads=threads, aliases=aliases,
        steps=shown,
    )  # fmt: skip
    return facts("{sample}: {done}", sample=sample, done=done)


if __name__ == "__main__":
    main()
