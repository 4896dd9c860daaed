#!/usr/bin/env python3
"""Write the samplesheet of a results folder of nf-core/sarek."""

from pathlib import Path

import click

from cordon.commands import OUTPUT, reports_errors
from cordon.samplesheet import CALLS
from cordon.sarek import samplesheet_from_sarek


@click.command()
@click.option("--sarek", type=click.Path(exists=True, file_okay=False), required=True, help="Its --outdir.")
@click.option("--folder", type=click.Path(), help="Where that folder lies for good, if it is a copy or link.")
@click.option("--site", required=True, help="The hospital whose samples these are.")
@click.option("--callers", default="haplotypecaller,deepvariant", show_default=True, help="Calls to take.")
@click.option("--output", type=OUTPUT, required=True, help="Samplesheet (CSV) to write.")
@reports_errors
def main(sarek: str, folder: str | None, site: str, callers: str, output: str) -> None:
    """Write the samplesheet of a results folder of nf-core/sarek."""
    wanted = callers.split(",")
    unknown = [caller for caller in wanted if caller not in CALLS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(CALLS)}.", param_hint="--callers")
    rows = samplesheet_from_sarek(
        sarek=sarek, folder=folder or Path(sarek).resolve(), site=site, callers=wanted, output=output
    )
    reads = sum("bam" in row for row in rows)
    click.echo(f"{len(rows)} samples, {reads} with reads")
    for caller in wanted:
        click.echo(f"{caller}: calls of {sum(f'{caller}_vcf' in row for row in rows)} samples")


if __name__ == "__main__":
    main()
