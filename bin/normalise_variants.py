#!/usr/bin/env python3
"""Split a caller's VCF into one record an allele, left-aligned, sorted and indexed."""

import click

from cordon.commands import EXISTING, OUTPUT, reports_errors
from cordon.variants import normalise_variants


@click.command()
@click.option("--vcf", type=EXISTING, required=True)
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--sample", required=True, help="Sample whose alleles are kept.")
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
@reports_errors
def main(vcf: str, reference: str, sample: str, output: str) -> None:
    """Split a caller's VCF into one record an allele, left-aligned, sorted and indexed."""
    records = normalise_variants(vcf=vcf, reference=reference, sample=sample, output=output)
    click.echo(f"{sample}: {records} alleles")


if __name__ == "__main__":
    main()
