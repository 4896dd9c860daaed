#!/usr/bin/env python3
"""Milliseconds per verification of real and emulated evidence, medians of single calls."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "labs"))

from attestation_lab import (
    INTEL_NOW,
    REAL,
    REPORT_DATA,
    authority,
    intel,
    intel_policy,
    policy_of,
    production,
    trustee,
    virtee,
)
from cordon.attestation.emulator import Emulator
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import Policy
from cordon.attestation.verify import verify


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=200, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(repeats: int, as_json: bool) -> None:
    """Real evidence is read from ../shared/data/attestation, where it is there."""
    now = datetime.now(UTC)
    cases: dict[str, tuple[Evidence, Policy, datetime]] = {}
    if REAL.is_dir():
        for name, real in (("virtee", virtee()), ("trustee", trustee())):
            cases[f"SEV-SNP, Milan, {name}"] = (real, production(real), now)
        for kind in ("sgx", "tdx"):
            cases[f"Intel {kind.upper()}"] = (intel(kind), intel_policy(), INTEL_NOW)
    emulated = Emulator(authority("turin"), version=5).collect(REPORT_DATA)
    cases["SEV-SNP, Turin, emulated"] = (emulated, policy_of(authority("turin")), now)
    found = {
        name: milliseconds(lambda held=held: verify(held[0], held[1], report_data=None, now=held[2]), repeats)
        for name, held in cases.items()
    }
    body = cases["SEV-SNP, Turin, emulated"][0].to_json()
    found["reading the JSON"] = milliseconds(lambda: Evidence.from_json(body), repeats)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        click.echo(f"{name:<28}{value:8.3f} ms")


if __name__ == "__main__":
    main()
