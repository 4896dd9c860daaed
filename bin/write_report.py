#!/usr/bin/env python3
"""Write the run's report: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.console.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.report import page, reading, sources
from cordon.report import trace as traces
from cordon.scoring.calibration import read_calibration


@command()
@click.option(
    "--federation", type=EXISTING, help="federation.json of the aggregator; leave out if none trained."
)
@click.option("--evaluation", type=EXISTING, help="evaluation.json; leave out if no sample was held out.")
@click.option("--callset", type=EXISTING, help="callset.json: the calls before and after each filter.")
@click.option(
    "--duplicates", multiple=True, type=EXISTING, help="SAMPLE.reads.json of normalise_reads; repeat it."
)
@click.option("--trace", type=EXISTING, help="Nextflow's trace, with raw numbers.")
@click.option("--parameters", required=True, type=EXISTING, help="The run's parameters as JSON.")
@click.option("--versions", type=EXISTING, help="versions.yml of all processes.")
@click.option("--ledger", type=EXISTING, help="The aggregator's ledger (JSON lines).")
@click.option("--spent", multiple=True, type=EXISTING, help="SITE.spent.json of a site; repeat it.")
@click.option(
    "--calibration", multiple=True, type=EXISTING, help="SITE.calibration.json of a site; repeat it."
)
@click.option("--certificate", type=EXISTING, help="The model's certificate.json.")
@click.option("--output", required=True, type=OUTPUT, help="report.html to write: the site's own.")
@click.option(
    "--shareable", type=OUTPUT, help="A report to write that may leave the site: without anything exact."
)
def main(
    federation: str | None,
    evaluation: str | None,
    callset: str | None,
    duplicates: tuple[str, ...],
    trace: str | None,
    parameters: str,
    versions: str | None,
    ledger: str | None,
    spent: tuple[str, ...],
    calibration: tuple[str, ...],
    certificate: str | None,
    output: str,
    shareable: str | None,
) -> Facts:
    """Write a run's report as one self-contained HTML file, and beside it one that may leave the site."""
    found = sources.Sources(
        parameters=reading.read_object(Path(parameters)),
        federation=reading.read_federation(Path(federation)) if federation else None,
        evaluation=reading.read_evaluation(Path(evaluation)) if evaluation else None,
        callset=reading.read_callset(Path(callset)) if callset else None,
        duplicates=[reading.read_duplicates(Path(path)) for path in duplicates],
        resources=traces.read_trace(Path(trace)) if trace else (),
        versions=reading.read_versions(Path(versions)) if versions else (),
        ledger=reading.read_ledger(Path(ledger)) if ledger else None,
        spent=[reading.read_spent(Path(path)) for path in spent],
        calibrations=[read_calibration(path) for path in calibration],
        certificate=reading.read_certificate(Path(certificate)) if certificate else None,
    )
    size = page.write_report(found, Path(output))
    told = facts("report: {report} ({megabytes:.2f} MB)", report=output, megabytes=size / 1e6)
    if shareable:
        size = page.write_report(found.to_share(), Path(shareable))
        told += facts(
            "report that may leave the site: {shareable} ({shareable_megabytes:.2f} MB)",
            shareable=shareable,
            shareable_megabytes=size / 1e6,
        )
    return told


if __name__ == "__main__":
    main()
