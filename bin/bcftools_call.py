#!/usr/bin/env python3
"""Call a sample's variants with bcftools mpileup and call."""

import click

from cordon.calls.normalise import bcftools_call
from cordon.console.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.console.progress import shown


@command()
@click.option("--bam", type=EXISTING, required=True, help="Sorted, indexed BAM.")
@click.option("--sample", required=True, help="Sample that the read groups must name.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--intervals", type=EXISTING, help="BED that limits the calling.")
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
def main(bam: str, sample: str, reference: str, intervals: str | None, output: str) -> Facts:
    """Call a sample's variants with bcftools mpileup and call."""
    records = bcftools_call(
        bam=bam, sample=sample, reference=reference, intervals=intervals, output=output, steps=shown
    )
    return facts("{sample}: {records} records called by bcftools", sample=sample, records=records)


if __name__ == "__main__":
    main()
