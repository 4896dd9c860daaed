#!/usr/bin/env python3
"""Describe the calls before and after each filter: callers' agreement, Ti/Tv, het/hom, types and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cordon.console.commands import EXISTING, OUTPUT, Facts, command


@command()
@click.option("--scores", multiple=True, required=True, type=EXISTING, help="Scored table; repeat it.")
@click.option("--output", required=True, type=OUTPUT, help="callset.json to write.")
def main(scores: tuple[str, ...], output: str) -> Facts:
    """Describe the calls of all samples given, before and after each filter; no truth is needed."""
    from cordon.evaluation.callset import describe, read_scored
    from cordon.files import written_beside

    content = describe(read_scored([Path(path) for path in scores]))
    with written_beside(Path(output)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Facts(content, [f"samples: {content['samples']}", f"alleles: {content['alleles']}"])


if __name__ == "__main__":
    main()
