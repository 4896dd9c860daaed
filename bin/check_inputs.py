#!/usr/bin/env python3
"""Check samplesheet, sites, reference and parameters; write the samplesheet with all defaults."""

from pathlib import Path

import click

from cordon.console.commands import EXISTING, FOLDER, OUTPUT, PRIVATE_ERRORS, Facts, GivenPath, command, facts
from cordon.console.progress import shown
from cordon.inputs.check import Places, check_inputs, read_staged


@command()
@click.option("--samplesheet", type=EXISTING, required=True, help="The run's samples (CSV).")
@click.option("--sites", type=EXISTING, help="Sites sheet (CSV).")
@click.option("--reference", type=EXISTING, required=True, help="FASTA, plain, gzip or bgzip.")
@click.option("--parameters", type=EXISTING, required=True, help="The run's parameters (JSON).")
@click.option("--schema", type=EXISTING, required=True, help="nextflow_schema.json.")
@click.option("--input_schema", type=EXISTING, help="Samplesheet's schema; by default as --schema names it.")
@click.option("--sites_schema", type=EXISTING, help="Sites sheet's schema; by default as --schema names it.")
@click.option("--base", type=GivenPath(path_type=Path), help="Folder that relative paths start from.")
@click.option("--staged", type=EXISTING, help="TSV of original and staged paths.")
@click.option("--aliases", type=EXISTING, help="Table of contig names (TSV).")
@click.option("--state", type=FOLDER, help="Folder of the sites' ledgers, with the salt of pseudonyms.")
@click.option("--federation_slots", type=click.IntRange(min=1), help="Tasks that can run at the same time.")
@click.option("--executor", help="Nextflow's executor, where the configuration names one.")
@click.option("--decided", help="NAME=VALUE,...: parameters by which the configuration was put together.")
@click.option("--output", type=OUTPUT, required=True, help="Checked samplesheet (CSV) to write.")
@click.option("--names", type=OUTPUT, help="CSV to write: samples and patients, and their pseudonyms.")
@PRIVATE_ERRORS
def main(
    samplesheet: str,
    sites: str | None,
    reference: str,
    parameters: str,
    schema: str,
    input_schema: str | None,
    sites_schema: str | None,
    base: Path | None,
    staged: str | None,
    aliases: str | None,
    state: str | None,
    federation_slots: int | None,
    executor: str | None,
    decided: str | None,
    output: str,
    names: str | None,
) -> Facts:
    """Check samplesheet, sites, reference and parameters; write the samplesheet with all defaults."""
    folder = (base or Path(samplesheet).parent).absolute()
    checked = check_inputs(
        samplesheet=samplesheet,
        sites=sites,
        reference=reference,
        parameters=parameters,
        schema=schema,
        input_schema=input_schema,
        sites_schema=sites_schema,
        places=Places(folder, read_staged(staged) if staged else {}),
        federation_slots=federation_slots,
        executor=executor,
        decided=decided,
        aliases=aliases,
        state=state,
        output=output,
        names=names,
        steps=shown,
    )
    named = {row["site"] for row in checked}
    return facts("samplesheet: {samples} samples of {sites} sites", samples=len(checked), sites=len(named))


if __name__ == "__main__":
    main()
