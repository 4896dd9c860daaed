"""Tests of cordon.attestation.intel on a real SGX quote and a real TDX quote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from attestation_lab import INTEL_NOW, MRENCLAVE, MRTD, flipped, intel, intel_policy, needs_real
from cordon.attestation import intel as module
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import Policy
from cordon.attestation.verify import Verified, genuine, verify
from cordon.errors import AttestationError

pytestmark = needs_real
KINDS = pytest.mark.parametrize("kind", ["sgx", "tdx"])
MRSIGNER = bytes.fromhex("815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6")


def refused(
    evidence: Evidence, policy: Policy, now: datetime = INTEL_NOW, carried: bytes | None = None
) -> str:
    with pytest.raises(AttestationError) as caught:
        verify(evidence, policy, report_data=carried, now=now)
    return str(caught.value)


def test_a_real_sgx_quote_verifies_at_its_time() -> None:
    carried = b"Hello, world!".ljust(64, b"\0")

    found = verify(intel("sgx"), intel_policy(), report_data=carried, now=INTEL_NOW)

    assert (found.kind, found.version, found.tcb_status) == ("sgx", 3, "ConfigurationAndSWHardeningNeeded")
    assert found.measurement == MRENCLAVE.hex()
    assert found.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert "not about this connection" in refused(intel("sgx"), intel_policy(), carried=bytes(64))


def test_a_real_tdx_quote_verifies_at_its_time() -> None:
    found = verify(intel("tdx"), intel_policy(), report_data=None, now=INTEL_NOW)

    assert (found.kind, found.version, found.tcb_status) == ("tdx", 4, "UpToDate")
    assert found.measurement == MRTD.hex()
    assert found.registers["rtmr1"].startswith("0084452c01668329")
    assert found.report_data.startswith("9a9d48e7f6799642")


@KINDS
@pytest.mark.parametrize("day", [datetime(2025, 7, 20, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)])
def test_a_quote_is_refused_outside_its_collaterals_time(kind: str, day: datetime) -> None:
    assert "The Intel quote is refused" in refused(intel(kind), intel_policy(), day)
    verify(intel(kind), intel_policy(), report_data=None, now=datetime(2025, 7, 18, tzinfo=UTC))


@KINDS
@pytest.mark.stress
def test_a_quote_with_any_byte_changed_is_refused(kind: str) -> None:
    evidence, policy = intel(kind), intel_policy()
    accepted = []
    for place in range(len(evidence.report)):
        try:
            changed = replace(evidence, report=flipped(evidence.report, place))
            verify(changed, policy, report_data=None, now=INTEL_NOW)
            accepted.append(place)
        except AttestationError:
            pass
    assert accepted == []


@KINDS
def test_a_quote_with_something_after_it_or_cut_short_is_refused(kind: str) -> None:
    evidence = intel(kind)
    # Zeros may follow: the real TDX quote is padded with them. They cannot say anything.
    for content in (evidence.report + b"x", evidence.report.rstrip(b"\0")[:-1], evidence.report[:700], b"\3"):
        assert "refused" in refused(replace(evidence, report=content), intel_policy())


@KINDS
def test_collateral_of_another_platform_or_changed_is_refused(kind: str) -> None:
    evidence = intel(kind)
    held = json.loads(evidence.collateral)
    other = intel("tdx" if kind == "sgx" else "sgx").collateral
    changed = [other, "{}", "[]", "no JSON", json.dumps(held | {"more": ""})]
    for name, value in held.items():
        for place in range(0, len(value), 13):
            letter = "1" if value[place] != "1" else "2"
            changed.append(json.dumps(held | {name: value[:place] + letter + value[place + 1 :]}))
    for collateral in changed:
        assert "refused" in refused(replace(evidence, collateral=collateral), intel_policy())


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("sgx", {"tcb_statuses": ("UpToDate",)}, "its TCB status ConfigurationAndSWHardeningNeeded"),
        ("sgx", {"mrenclave": frozenset([bytes(32)])}, "its MRENCLAVE 33d8736d"),
        ("sgx", {"mrenclave": frozenset()}, "neither MRENCLAVE nor MRSIGNER"),
        ("sgx", {"mrsigner": frozenset([bytes(32)])}, "its MRSIGNER 815f42f1"),
        ("sgx", {"minimum_isv_svn": 1}, "its ISV SVN is 0, under 1"),
        ("sgx", {"isv_prod_id": 1}, "its product id is 0, not 1"),
        ("tdx", {"mrtd": frozenset()}, "its MRTD 91eb2b44"),
        ("tdx", {"rtmrs": {"rtmr2": frozenset([bytes(48)])}}, "its RTMR2 d833feef"),
        ("tdx", {"dynamic_platform": False}, "its platform has dynamic_platform = true"),
        ("tdx", {"smt": False}, "smt = true"),
        ("tdx", {"cached_keys": False}, "cached_keys = true"),
    ],
)
def test_a_policy_refuses_what_it_does_not_allow(kind: str, changes: dict[str, Any], reason: str) -> None:
    assert reason in refused(intel(kind), intel_policy(**changes))


def test_a_signer_may_be_pinned_instead_of_an_enclave() -> None:
    policy = intel_policy(mrenclave=frozenset(), mrsigner=frozenset([MRSIGNER]), isv_prod_id=0)
    assert (
        verify(intel("sgx"), policy, report_data=None, now=INTEL_NOW).registers["mrsigner"] == MRSIGNER.hex()
    )


def test_a_quote_of_the_other_kind_is_refused() -> None:
    for kind, other in (("sgx", "tdx"), ("tdx", "sgx")):
        assert f"no {other} quote" in refused(replace(intel(kind), kind=other), intel_policy())


def test_without_a_policy_a_quote_of_a_cloud_is_genuine_and_says_what_its_platform_has() -> None:
    found = genuine(intel("tdx"), report_data=None, now=INTEL_NOW)
    assert found.platform_info == ("dynamic_platform", "cached_keys", "smt")
    assert genuine(intel("sgx"), report_data=None, now=INTEL_NOW).tcb_status.endswith("SWHardeningNeeded")
    with pytest.raises(AttestationError, match="The quote is genuine"):
        verify(intel("tdx"), intel_policy(smt=False), report_data=None, now=INTEL_NOW)


@pytest.mark.parametrize("status", ["OutOfDate", "OutOfDateConfigurationNeeded"])
def test_a_platform_out_of_date_is_the_policys_to_allow(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real quote of such a platform is at hand: what `dcap-qvl` claims is changed."""
    changed_claims(monkeypatch, lambda claims: claims["tcb"].update(status=status))
    assert f"its TCB status {status} is not one" in refused(intel("tdx"), intel_policy())
    allowing = intel_policy(tcb_statuses=("UpToDate", status))
    assert verify(intel("tdx"), allowing, report_data=None, now=INTEL_NOW).tcb_status == status


def test_a_revoked_platform_is_refused_even_without_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    changed_claims(monkeypatch, lambda claims: claims["tcb"].update(status="Revoked"))
    with pytest.raises(AttestationError, match="has revoked"):
        genuine(intel("tdx"), report_data=None, now=INTEL_NOW)


def changed_claims(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object]) -> None:
    facts = module._facts

    def changed(kind: str, claims: dict[str, Any]) -> Verified:
        change(claims)
        return facts(kind, claims)

    monkeypatch.setattr(module, "_facts", changed)


def test_a_policy_without_intel_refuses_quotes() -> None:
    assert "no section [intel]" in refused(intel("sgx"), Policy())


@KINDS
def test_code_that_may_be_debugged_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real quote of such code is at hand: what `dcap-qvl` claims is changed."""

    def debugged(claims: dict[str, Any]) -> None:
        ((_, body),) = claims["report"].items()
        body = body.get("base", body)
        name = "attributes" if kind == "sgx" else "td_attributes"
        first = int(body[name][:2], 16) | (0x02 if kind == "sgx" else 0x01)
        body[name] = f"{first:02x}{body[name][2:]}"

    changed_claims(monkeypatch, debugged)
    assert "may be debugged" in refused(intel(kind), intel_policy())
    assert genuine(intel(kind), report_data=None, now=INTEL_NOW).debug
