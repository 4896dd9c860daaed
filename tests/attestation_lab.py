"""Real and emulated evidence, and policies for it, for the tests of cordon.attestation."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from conftest import SHARED
from cordon.attestation.certificates import amd_roots, fingerprint
from cordon.attestation.emulator import MEASUREMENT, SECURITY_VERSION, Authority
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import IntelPolicy, Policy, SnpPolicy
from cordon.attestation.report import TCB_LAYOUT

REAL = SHARED / "attestation"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/attestation is not on this machine")
MASKS = (0x01, 0x80, 0xFF)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
# The collateral of the Intel quotes is of 2025-06-19 to 2025-07-19.
INTEL_NOW = datetime(2025, 6, 20, 12, tzinfo=UTC)
REPORT_DATA = bytes(range(64))
MILAN_TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
MRENCLAVE = bytes.fromhex("33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb")
MRTD = bytes.fromhex(
    "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
)


def real_chain(product: str = "milan") -> tuple[bytes, ...]:
    """ASK and ARK in DER."""
    content = (REAL / "sev_snp" / f"cert_chain_{product}").read_bytes()
    return tuple(item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(content))


def virtee() -> Evidence:
    folder = REAL / "sev_snp"
    report = bytes.fromhex((folder / "report_milan.hex").read_text().strip())
    return Evidence("sev-snp", report, ((folder / "vcek_milan.der").read_bytes(), *real_chain()))


def trustee() -> Evidence:
    folder = REAL / "sev_snp"
    report = (folder / "trustee_milan_report.bin").read_bytes()
    return Evidence("sev-snp", report, ((folder / "trustee_milan_vcek.der").read_bytes(), *real_chain()))


def production(evidence: Evidence, **changes: Any) -> Policy:
    """AMD's roots, and the measurement that ``evidence`` has."""
    held: dict[str, Any] = {
        "roots": amd_roots(), "measurements": frozenset([evidence.report[0x90:0xC0]]),
        "minimum_tcb": {"milan": MILAN_TCB},
    }  # fmt: skip
    return Policy(sev_snp=SnpPolicy(**(held | changes)))


@cache
def authority(product: str = "milan", vlek: bool = False) -> Authority:
    return Authority.make(product, vlek=vlek)


def policy_of(root: Authority, **changes: Any) -> Policy:
    layout = TCB_LAYOUT[root.product]
    held: dict[str, Any] = {
        "roots": {fingerprint(root.ark): "test"}, "measurements": frozenset([MEASUREMENT]),
        "minimum_tcb": {root.product: {part: SECURITY_VERSION[part] for part in layout}},
    }  # fmt: skip
    return Policy(sev_snp=SnpPolicy(**(held | changes)), test_only=True)


def intel(kind: str) -> Evidence:
    folder = REAL / "intel"
    collateral = (folder / f"{kind}_quote_collateral.json").read_text()
    return Evidence(kind, (folder / f"{kind}_quote").read_bytes(), (), collateral)


def intel_policy(**changes: Any) -> Policy:
    held: dict[str, Any] = {
        "mrenclave": frozenset([MRENCLAVE]), "mrtd": frozenset([MRTD]),
        "tcb_statuses": ("UpToDate", "ConfigurationAndSWHardeningNeeded"),
        "dynamic_platform": True, "cached_keys": True, "smt": True,
    }  # fmt: skip
    return Policy(intel=IntelPolicy(**(held | changes)))


def flipped(content: bytes, place: int, mask: int = 0x01) -> bytes:
    changed = bytearray(content)
    changed[place] ^= mask
    return bytes(changed)
