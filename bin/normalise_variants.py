#!/usr/bin/env python3
"""Split a caller's VCF, or a resource's, into one record an allele, left-aligned, sorted and indexed."""

from dataclasses import asdict

import click

from cordon.calls.normalise import DROP, FILTERED, KEEP, normalise_variants, write_statistics
from cordon.console.commands import EXISTING, GIVEN, OUTPUT, PRIVATE_ERRORS, Facts, command, name_in_files
from cordon.console.progress import shown


@command()
@click.option("--vcf", type=EXISTING, required=True, help="VCF, gVCF or BCF.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--sample", help="Sample whose alleles are kept, as the VCF to write names it.")
@GIVEN
@click.option("--sites_only", is_flag=True, help="Keep every allele, without genotypes, with INFO/AF alone.")
@click.option("--aliases", type=EXISTING, help="Table of contig names: one contig a line, tabs between.")
@click.option(
    "--alone", is_flag=True, help="Refuse calls made together with other samples': this one is trained on."
)
@click.option(
    "--filtered_records",
    type=click.Choice(FILTERED),
    default=KEEP,
    show_default=True,
    help="What becomes of records whose FILTER is neither PASS nor missing.",
)
@click.option("--summary", type=OUTPUT, help="JSON of what was changed and left out.")
@click.option("--statistics", type=OUTPUT, help="What `bcftools stats` says of the output.")
@click.option("--output", type=OUTPUT, required=True, help="bgzip VCF to write; its .tbi comes beside it.")
@PRIVATE_ERRORS
def main(
    vcf: str,
    reference: str,
    sample: str | None,
    given: str | None,
    sites_only: bool,
    aliases: str | None,
    alone: bool,
    filtered_records: str,
    summary: str | None,
    statistics: str | None,
    output: str,
) -> Facts:
    """Split a caller's VCF, or a resource's, into one record an allele, left-aligned, sorted and indexed."""
    if sites_only == (sample is not None):
        raise click.UsageError("A file is a sample's or a resource's. Give either --sample or --sites_only.")
    done = normalise_variants(
        vcf=vcf,
        reference=reference,
        sample=sample,
        named=name_in_files(given, sample, vcf=vcf),
        output=output,
        aliases=aliases,
        alone=alone,
        passing=filtered_records == DROP,
        steps=shown,
    )
    if summary:
        done.write(summary)
    if statistics:
        write_statistics(output, statistics)
    return Facts({"sample": sample} | asdict(done), [f"{sample or 'sites'}: {done}"])


if __name__ == "__main__":
    main()
