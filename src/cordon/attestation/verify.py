"""The one question that a site asks: is this evidence good enough for my policy?"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from cordon.attestation import intel, snp
from cordon.attestation.certificates import amd_roots
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import Policy
from cordon.attestation.verified import Verified
from cordon.errors import AttestationError

__all__ = ["Verified", "genuine", "verify"]


def verify(
    evidence: Evidence, policy: Policy, *, report_data: bytes | None, now: datetime | None = None
) -> Verified:
    """Verify ``evidence`` offline against ``policy``, at ``now`` (default: the clock).

    ``report_data`` are the 64 bytes that the report must carry (`binding.report_data`); None leaves
    out that one check, for looking at a report by hand: then nothing says whose report it is. Raises
    AttestationError with the reason and what to do.
    """
    now = now or datetime.now(UTC)
    policy.check_dates(now)
    if evidence.kind == "sev-snp":
        found = _snp(evidence, policy, now)
    else:
        if policy.intel is None:
            raise _not_in_policy(evidence.kind, "intel")
        found = intel.authenticate(evidence, now)
        intel.enforce(found, policy.intel)
    _check_binding(found, report_data)
    return found


def genuine(evidence: Evidence, *, report_data: bytes | None, now: datetime | None = None) -> Verified:
    """Who made ``evidence``: AMD's or Intel's hardware, or AttestationError; not what runs there.

    For looking at evidence by hand: a guest that may be debugged, or a platform out of date, is genuine too.
    """
    now = now or datetime.now(UTC)
    if evidence.kind == "sev-snp":
        _, found = snp.authenticate(evidence, amd_roots(), now)
    else:
        found = intel.authenticate(evidence, now)
    _check_binding(found, report_data)
    return found


def _check_binding(found: Verified, report_data: bytes | None) -> None:
    if report_data is not None and not hmac.compare_digest(bytes.fromhex(found.report_data), report_data):
        raise AttestationError(
            "The report is genuine but not about this connection: its report_data are of another TLS key or "
            "another nonce. Something relays between this site and the aggregator, or answers with an old "
            "report: do not connect, and tell the operator."
        )


def _snp(evidence: Evidence, policy: Policy, now: datetime) -> Verified:
    held = policy.sev_snp
    if held is None:
        raise _not_in_policy(evidence.kind, "sev_snp")
    report, found = snp.authenticate(evidence, held.roots, now, held.revocations)
    if found.test_only != policy.test_only:
        raise AttestationError(
            "The evidence comes from an emulator whose root says TEST ONLY, and proves nothing about any "
            "hardware. Only a policy with test_only = true accepts it, for tests and demos."
            if found.test_only
            else f"The policy says test_only = true, but the root {found.root} is not a test's. Use the "
            "policy of production."
        )
    snp.enforce(report, found, held)
    return found


def _not_in_policy(kind: str, section: str) -> AttestationError:
    return AttestationError(
        f"The evidence is of kind {kind}, for which the policy has no section [{section}]. If the "
        "consortium moved the aggregator, use its new policy."
    )
