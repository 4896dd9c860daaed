#!/usr/bin/env python3
"""Check a sample's reads, sort them, mark duplicates, index them."""

import click

from cordon.console.commands import (
    EXISTING,
    GIVEN,
    OUTPUT,
    PRIVATE_ERRORS,
    Facts,
    command,
    facts,
    name_in_files,
)
from cordon.console.progress import shown
from cordon.reads.normalise import normalise_reads


@command()
@click.option("--bam", type=EXISTING, required=True, help="BAM or CRAM.")
@click.option("--sample", required=True, help="The sample, as the BAM to write names it.")
@GIVEN
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--aliases", type=EXISTING, help="Table of contig names: one contig a line, tabs between.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For samtools.")
@click.option("--output", type=OUTPUT, required=True, help="BAM to write; its .bai comes beside it.")
@PRIVATE_ERRORS
def main(
    bam: str,
    sample: str,
    given: str | None,
    reference: str,
    aliases: str | None,
    threads: int,
    output: str,
) -> Facts:
    """Check a sample's reads, sort them, mark duplicates, index them."""
    done = normalise_reads(
        bam=bam,
        sample=sample,
        named=name_in_files(given, sample, bam=bam),
        reference=reference,
        output=output,
        threads=threads,
        aliases=aliases,
        steps=shown,
    )
    return facts("{sample}: {done}", sample=sample, done=done)


if __name__ == "__main__":
    main()
