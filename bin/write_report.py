#!/usr/bin/env python3
"""Write the run's report: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.commands import EXISTING, OUTPUT, Facts, command, facts
from cordon.report import page, sources


@command()
@click.option(
    "--federation", type=EXISTING, help="federation.json of the aggregator; leave out if none trained."
)
@click.option("--evaluation", type=EXISTING, help="evaluation.json; leave out if no sample was held out.")
@click.option("--parameters", required=True, type=EXISTING, help="The run's parameters as JSON.")
@click.option("--versions", type=EXISTING, help="versions.yml of all processes.")
@click.option("--ledger", type=EXISTING, help="The aggregator's ledger (JSON lines).")
@click.option("--certificate", type=EXISTING, help="The model's certificate.json.")
@click.option("--output", required=True, type=OUTPUT, help="report.html to write.")
def main(
    federation: str | None,
    evaluation: str | None,
    parameters: str,
    versions: str | None,
    ledger: str | None,
    certificate: str | None,
    output: str,
) -> Facts:
    """Write one self-contained HTML report of a run."""
    found = sources.Sources(
        parameters=sources.read_object(Path(parameters)),
        federation=sources.read_federation(Path(federation)) if federation else None,
        evaluation=sources.read_evaluation(Path(evaluation)) if evaluation else None,
        versions=sources.read_versions(Path(versions)) if versions else (),
        ledger=sources.read_ledger(Path(ledger)) if ledger else None,
        certificate=sources.read_certificate(Path(certificate)) if certificate else None,
    )
    size = page.write_report(found, Path(output))
    return facts("report: {report} ({megabytes:.2f} MB)", report=output, megabytes=size / 1e6)


if __name__ == "__main__":
    main()
