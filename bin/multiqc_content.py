#!/usr/bin/env python3
"""Write what MultiQC shows of a run: custom content (`*_mqc.json`) and software versions."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, command, each
from cordon.report import multiqc, reading, sources


@command()
@click.argument("summaries", nargs=-1, type=EXISTING)
@click.option("--federation", type=EXISTING, help="federation.json of the aggregator.")
@click.option("--evaluation", type=EXISTING, help="evaluation.json of the held-out samples.")
@click.option("--certificate", type=EXISTING, help="The model's certificate.json.")
@click.option("--versions", type=EXISTING, help="versions.yml of all processes.")
@click.option("--outdir", required=True, type=FOLDER, help="Folder to write to.")
def main(
    summaries: tuple[str, ...],
    federation: str | None,
    evaluation: str | None,
    certificate: str | None,
    versions: str | None,
    outdir: str,
) -> Facts:
    """Write custom content from SUMMARIES of calls and reads, and what else there is of the run."""
    found = sources.Sources(
        parameters={},
        federation=reading.read_federation(Path(federation)) if federation else None,
        evaluation=reading.read_evaluation(Path(evaluation)) if evaluation else None,
        certificate=reading.read_certificate(Path(certificate)) if certificate else None,
    )
    written = multiqc.write_sections(found, [Path(path) for path in summaries], Path(outdir))
    if versions:
        rows = reading.read_versions(Path(versions))
        written.append(multiqc.write_versions(rows, Path(outdir)))
    return each("written", "MultiQC content: {path}", [{"path": path} for path in written])


if __name__ == "__main__":
    main()
