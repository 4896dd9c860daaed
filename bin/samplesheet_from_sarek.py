#!/usr/bin/env python3
"""Write the samplesheet of a results folder of nf-core/sarek."""

from pathlib import Path

import click

from cordon.console.commands import EXISTING_FOLDER, OUTPUT, PRIVATE_ERRORS, Facts, command, each, facts
from cordon.inputs.samplesheet import VCF_COLUMNS
from cordon.inputs.sarek import samplesheet_from_sarek


@command()
@click.option("--sarek", type=EXISTING_FOLDER, required=True, help="Its --outdir.")
@click.option("--folder", type=click.Path(), help="Where that folder lies for good, if it is a copy or link.")
@click.option("--site", required=True, help="The hospital whose samples these are.")
@click.option("--callers", default="haplotypecaller,deepvariant", show_default=True, help="Calls to take.")
@click.option("--output", type=OUTPUT, required=True, help="Samplesheet (CSV) to write.")
@PRIVATE_ERRORS
def main(sarek: str, folder: str | None, site: str, callers: str, output: str) -> Facts:
    """Write the samplesheet of a results folder of nf-core/sarek."""
    wanted = callers.split(",")
    unknown = [caller for caller in wanted if caller not in VCF_COLUMNS]
    if unknown:
        remedy = f"Give some of {', '.join(VCF_COLUMNS)}, with commas between."
        raise click.BadParameter(f"{unknown[0]} is no caller. {remedy}", param_hint="--callers")
    rows = samplesheet_from_sarek(
        sarek=sarek, folder=folder or Path(sarek).resolve(), site=site, callers=wanted, output=output
    )
    reads = sum("bam" in row for row in rows)
    calls = [{"caller": caller, "samples": sum(f"{caller}_vcf" in row for row in rows)} for caller in wanted]
    told = facts("{samples} samples, {with_reads} with reads", samples=len(rows), with_reads=reads)
    return told + each("calls", "{caller}: calls of {samples} samples", calls)


if __name__ == "__main__":
    main()
