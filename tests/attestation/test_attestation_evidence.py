"""Tests of the evidence's JSON, and fuzzing of all that reads what a stranger sent.

CORDON_FUZZ_SECONDS makes each fuzzing test run for that long instead of a few hundred examples.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation_lab import (
    INTEL_NOW,
    REAL,
    REPORT_DATA,
    authority,
    intel,
    intel_policy,
    needs_real,
    policy_of,
    production,
    virtee,
)
from cordon.attestation.emulator import Emulator
from cordon.attestation.evidence import CERTIFICATE_BYTES, JSON_BYTES, REPORT_BYTES, Evidence
from cordon.attestation.guest import parse_table
from cordon.attestation.snp_report import Report
from cordon.attestation.verify import verify
from cordon.errors import AttestationError

FUZZ_SECONDS = float(os.environ.get("CORDON_FUZZ_SECONDS", "0"))
FAST = settings(max_examples=200, deadline=2000, database=None, suppress_health_check=list(HealthCheck))


def fuzz(test: Callable[[], None]) -> None:
    """Run a hypothesis test once, or again and again until the time is over."""
    end = time.monotonic() + FUZZ_SECONDS
    test()
    while time.monotonic() < end:
        test()


def test_evidence_survives_json() -> None:
    evidence = Emulator(authority()).collect(REPORT_DATA)
    assert Evidence.from_json(evidence.to_json()) == evidence
    assert Evidence.from_json(evidence.to_json().encode()) == evidence
    quote = Evidence("tdx", b"quote", (), '{"tcb_info": "x"}')
    assert Evidence.from_json(quote.to_json()) == quote


def changed(**values: Any) -> str:
    return json.dumps(json.loads(Emulator(authority()).collect(REPORT_DATA).to_json()) | values)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: "", "0 bytes"),
        (lambda: "no", "is not JSON"),
        (lambda: b"\xff\xfe\x00", "is not JSON"),
        (lambda: "[" * 100_000, "is not JSON"),
        (lambda: "9" * 100_000, "is not JSON"),
        (lambda: " " * (JSON_BYTES + 1), "of which 1 to"),
        (lambda: "[]", "not one object"),
        (lambda: changed(more=1), "not one object"),
        (lambda: '{"kind": "sgx", "kind": "tdx"}', "a key is there twice"),
        (lambda: changed(cordon_evidence=2), "format is not 1"),
        (lambda: changed(cordon_evidence=True), "format is not 1"),
        (lambda: changed(kind="sev"), "kind is none of"),
        (lambda: changed(kind=None), "not texts"),
        (lambda: changed(kind="tdx"), "carries its certificates itself"),
        (lambda: changed(report=7), "not base64"),
        (lambda: changed(report="*"), "not base64"),
        (lambda: changed(report="é"), "not base64"),
        (lambda: changed(report=""), "0 bytes"),
        (lambda: changed(report=base64.b64encode(bytes(REPORT_BYTES + 1)).decode()), "of which 1 to"),
        (lambda: changed(certificates=None), "not a list"),
        (lambda: changed(certificates=["AAAA"] * 2), "three certificates"),
        (lambda: changed(certificates=["AAAA"] * 9999), "three certificates"),
        (lambda: changed(certificates=[base64.b64encode(bytes(CERTIFICATE_BYTES + 1)).decode()] * 3), "8193"),
        (lambda: changed(collateral="{}"), "three certificates"),
        (lambda: changed(kind="sgx", certificates=[]), "its collateral has 0 bytes"),
    ],
)
def test_malformed_json_is_refused(make: Callable[[], str | bytes], reason: str) -> None:
    with pytest.raises(AttestationError, match=reason):
        Evidence.from_json(make())


def test_random_bytes_raise_nothing_but_an_attestation_error() -> None:
    policy = policy_of(authority())
    leaf, ask, ark = Emulator(authority()).collect(REPORT_DATA).certificates

    @FAST
    @given(
        st.binary(max_size=1500),
        st.binary(min_size=1184, max_size=1184),
        st.binary(min_size=1, max_size=2000),
    )
    def attempt(raw: bytes, report: bytes, certificate: bytes) -> None:
        tries: list[Callable[[], object]] = [
            lambda: Evidence.from_json(raw),
            lambda: Report.parse(report),
            lambda: verify(Evidence("sev-snp", report, (leaf, ask, ark)), policy, report_data=REPORT_DATA),
            lambda: verify(Evidence("sev-snp", report, (certificate, ask, ark)), policy, report_data=None),
            lambda: parse_table(raw),
        ]
        if raw:
            quote = Evidence("sgx", raw, (), "{}")
            tries.append(lambda: verify(quote, intel_policy(), report_data=None))
            tries.append(lambda: verify(replace(quote, kind="tdx"), intel_policy(), report_data=None))
        for attempted in tries:
            with suppress(AttestationError):
                attempted()

    fuzz(attempt)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    kinds = st.sampled_from(["replace", "insert", "delete", "cut"])
    places = st.floats(0, 1, exclude_max=True)
    return draw(st.lists(st.tuples(kinds, places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))


def edited(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, new in changes:
        place = int(share * len(content))
        if kind == "replace":
            content = content[:place] + new + content[place + len(new) :]
        elif kind == "insert":
            content = content[:place] + new + content[place:]
        elif kind == "delete":
            content = content[:place] + content[place + len(new) :]
        else:
            content = content[: max(1, place)]
    return content or b"\0"


@needs_real
def test_mutated_real_evidence_raises_nothing_but_an_attestation_error() -> None:
    real = virtee()
    policy = production(real)
    quotes = [intel(kind) for kind in ("sgx", "tdx")]
    assert REAL.is_dir()

    @FAST
    @given(edits(), st.integers(0, 3))
    def attempt(changes: list[tuple[str, float, bytes]], which: int) -> None:
        parts = [real.report, *real.certificates]
        before, parts[which] = parts[which], edited(parts[which], changes)
        tries: list[Callable[[], object]] = [
            lambda: verify(Evidence("sev-snp", parts[0], tuple(parts[1:])), policy, report_data=None),
            lambda: Evidence.from_json(edited(real.to_json().encode(), changes)),
        ]
        for quote in quotes:
            content = edited(quote.report, changes)
            collateral = edited(quote.collateral.encode(), changes).decode("utf-8", "replace")
            for held in ((content, quote.collateral), (quote.report, collateral)):
                tries.append(
                    lambda kind=quote.kind, held=held: verify(  # type: ignore[misc]
                        Evidence(kind, held[0][:REPORT_BYTES], (), held[1]),
                        intel_policy(),
                        report_data=None,
                        now=INTEL_NOW,
                    )
                )
        for number, attempted in enumerate(tries):
            try:
                attempted()
                # Accepted is only what the edits did not change.
                assert number > 0 or parts[which] == before
            except AttestationError:
                pass

    fuzz(attempt)
