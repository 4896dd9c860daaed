"""Tests of cordon.attestation on emulated SEV-SNP evidence: other products, guests and keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestation_lab import REPORT_DATA, authority, policy_of
from cordon.attestation.certificates import amd_roots
from cordon.attestation.emulator import MEASUREMENT, PSS, SECURITY_VERSION, Authority, Emulator
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import Policy, SnpPolicy
from cordon.attestation.verified import Verified
from cordon.attestation.verify import verify
from cordon.errors import AttestationError

OLD = SECURITY_VERSION | {"snp": 21}


def check(emulator: Emulator, policy: Policy | None = None, **changes: Any) -> Verified:
    policy = policy or policy_of(emulator.authority, **changes)
    return verify(emulator.collect(REPORT_DATA), policy, report_data=REPORT_DATA)


def refused(emulator: Emulator, policy: Policy | None = None, **changes: Any) -> str:
    with pytest.raises(AttestationError) as caught:
        check(emulator, policy, **changes)
    return str(caught.value)


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("product", ["milan", "genoa", "turin"])
def test_an_emulated_report_passes_a_test_policy(product: str, version: int) -> None:
    found = check(Emulator(authority(product), version=version))

    assert (found.product, found.version, found.test_only, found.root) == (product, version, True, "test")
    assert found.measurement == MEASUREMENT.hex()
    assert set(found.tcb) == {
        "bootloader",
        "tee",
        "snp",
        "microcode",
        *(["fmc"] if product == "turin" else []),
    }


def test_an_emulated_report_is_refused_in_production() -> None:
    emulator = Emulator(authority())
    minimum = {"milan": dict.fromkeys(("bootloader", "tee", "snp", "microcode"), 0)}
    held = SnpPolicy(roots=amd_roots(), measurements=frozenset([MEASUREMENT]), minimum_tcb=minimum)
    reason = refused(emulator, Policy(sev_snp=held))
    assert "is not one that the policy pins; it is for tests only" in reason

    pinned = replace(policy_of(emulator.authority), test_only=False)
    assert "emulator whose root says TEST ONLY" in refused(emulator, pinned)


@pytest.mark.parametrize(
    ("guest", "reason"),
    [
        ({"measurement": bytes(48)}, "the measurement 0000"),
        ({"debug": True}, "may be debugged"),
        ({"migration_agent": True}, "a migration agent may move"),
        ({"patch": {0x160: bytes(32)}}, "a migration agent may move"),
        ({"vmpl": 1}, "made at VMPL 1, over 0"),
        ({"tcb": OLD}, "its reported TCB is under the policy's minimum: snp 21 < 22"),
        ({"launch_tcb": OLD}, "its launch TCB is under the policy's minimum: snp 21 < 22"),
        ({"leaf_tcb": OLD}, "is not its key's"),
        ({"chip_id": bytes(64)}, "chip id is not the one in the VCEK"),
        ({"mask_chip_key": True}, "MASK_CHIP_KEY"),
        ({"signer": "VLEK"}, "names a VLEK as its key, but comes with a VCEK"),
        ({"version": 1}, "is of version 1; known are 2, 3, 5"),
        ({"patch": {0x188: b"\x19\x11"}}, "of a genoa processor, its key of a milan"),
        ({"patch": {0x34: b"\2"}}, "signed by algorithm 2"),
        ({"patch": {0x48: b"\x1c"}}, "names no signing key"),
        ({"patch": {0x08: b"\0\0\0"}}, "lacks the bit of the guest policy"),
    ],
)
def test_each_refusal_has_its_own_reason(guest: dict[str, Any], reason: str) -> None:
    assert reason in refused(Emulator(authority(), **guest))


# What newer firmware may report, and the words that a refusal has for it.
NEWER = [
    ({"version": 4}, "version 4"),
    ({"version": 6, "patch": {0x1F8: b"\1"}}, "version 6"),
    ({"patch": {0x188: b"\x1a\x50"}}, "cpu family 0x1a model 0x50"),
    ({"patch": {0x4C: b"\1"}}, "bytes 0x4c to 0x50"),
    ({"patch": {0x48: b"\x20"}}, "key_info bit 5"),
    ({"patch": {0x0C: b"\1"}}, "guest_policy bit 32"),
    ({"patch": {0x3A: b"\1"}}, "current_tcb"),
    ({"patch": {0x1F8: b"\1"}}, "bytes 0x1f8 to 0x208"),
    ({"version": 2, "patch": {0x188: b"\1"}}, "bytes 0x188 to 0x1a0"),
    ({"version": 5, "patch": {0x208: b"\1"}}, "bytes 0x208 to 0x2a0"),
]


@pytest.mark.parametrize(("guest", "what"), NEWER, ids=[what for _, what in NEWER])
def test_what_newer_firmware_reports_is_genuine_and_the_policys_to_allow(
    guest: dict[str, Any], what: str
) -> None:
    emulator = Emulator(authority(), **guest)
    reason = refused(emulator)
    assert f"it has {what}, of which this version of Cordon knows nothing. The report is genuine" in reason
    assert "forged" not in reason
    assert check(emulator, unknown=frozenset([what])).unknown == (what,)
    assert "knows nothing" in refused(emulator, unknown=frozenset(["something else"]))


@pytest.mark.parametrize(
    ("version", "bits", "refusing"),
    [
        (5, 0x64, None), (5, 0x65, None), (5, 0xFF, None), (3, 0x3F, None), (2, 0x1F, None),
        (3, 0x40, "iommu_write_safe"), (2, 0x20, "alias_check_complete"), (5, 0x100, "bit8"),
        (5, 1 << 63, "bit63"),
    ],
)  # fmt: skip
def test_bits_of_the_platform_are_the_policys_to_allow(version: int, bits: int, refusing: str | None) -> None:
    emulator = Emulator(authority("turin"), version=version, patch={0x40: bits.to_bytes(8, "little")})
    if refusing is not None:
        reason = refused(emulator)
        assert f"its platform info has {refusing!r}" in reason
        assert "The report is genuine" in reason
        assert refusing in check(emulator, platform_info=frozenset([refusing])).platform_info
    else:
        found = check(emulator)
        assert len(found.platform_info) == bits.bit_count()
        assert "which the policy does not allow" in refused(emulator, platform_info=frozenset(["bit9"]))


def test_a_policy_requires_bits_of_the_platform_and_mitigations() -> None:
    emulator = Emulator(authority(), version=5, patch={0x1F8: b"\x07", 0x200: b"\x0f"})
    found = check(emulator, mitigations=frozenset([0, 2]), platform_info_required=frozenset(["smt"]))
    assert (found.launch_mitigations, found.current_mitigations) == ((0, 1, 2), (0, 1, 2, 3))
    assert "its launch mitigation vector lacks 3" in refused(emulator, mitigations=frozenset([0, 3]))
    older = Emulator(authority(), version=3)
    assert "(version 3) does not tell 0" in refused(older, mitigations=frozenset([0]))
    required = frozenset(["alias_check_complete", "smt"])
    assert "lacks alias_check_complete" in refused(emulator, platform_info_required=required)


def test_a_policy_may_allow_what_is_refused_by_default() -> None:
    guest = Emulator(authority(), debug=True, migration_agent=True, vmpl=2)
    found = check(guest, debug=True, migration_agent=True, max_vmpl=2)
    assert (found.debug, found.migration_agent, found.vmpl) == (True, True, 2)


def test_author_keys_are_pinned() -> None:
    digest = b"\7" * 48
    allowed = {"author_key_digests": frozenset([digest])}
    check(Emulator(authority(), author_key_digest=digest), **allowed)
    assert "author_key_digest 0808" in refused(
        Emulator(authority(), author_key_digest=b"\x08" * 48), **allowed
    )


@pytest.mark.parametrize("start", [0x2A0 + 48, 0x2E8 - 1, 0x2E8 + 48, 0x330, 0x49F])
def test_bytes_after_the_signature_must_be_zero(start: int) -> None:
    evidence = Emulator(authority()).collect(REPORT_DATA)
    report = bytearray(evidence.report)
    report[start] = 1
    with pytest.raises(AttestationError, match="bytes after its signature"):
        verify(replace(evidence, report=bytes(report)), policy_of(authority()), report_data=None)


def test_another_chips_key_is_refused() -> None:
    one, other = Emulator(authority()), Emulator(authority())
    mixed = Evidence("sev-snp", one.collect(REPORT_DATA).report, other.collect(REPORT_DATA).certificates)
    with pytest.raises(AttestationError, match="chip id"):
        verify(mixed, policy_of(authority()), report_data=None)
    other.hardware_id = one.hardware_id
    mixed = replace(mixed, certificates=other.collect(REPORT_DATA).certificates)
    with pytest.raises(AttestationError, match="not signed by the VCEK"):
        verify(mixed, policy_of(authority()), report_data=None)


def test_the_ids_of_turin_chips_have_eight_bytes() -> None:
    emulator = Emulator(authority("turin"))
    found = check(emulator)
    assert found.chip_id == emulator.hardware_id[:8].hex() + "00" * 56
    longer = emulator.hardware_id[:8] + b"\1" * 56
    assert "chip id" in refused(replace(emulator, chip_id=longer))
    assert "fmc 0 < 1" in refused(Emulator(authority("turin"), tcb=SECURITY_VERSION | {"fmc": 0}))


def test_a_leased_key_is_accepted_and_its_provider_pinned() -> None:
    emulator = Emulator(authority("milan", vlek=True), chip_id=bytes(64))

    found = check(emulator)

    assert (found.signer, found.provider) == ("VLEK", "Cordon TEST ONLY")
    check(emulator, providers=frozenset(["Cordon TEST ONLY"]))
    assert "leased to the provider" in refused(emulator, providers=frozenset(["another"]))
    wrong = replace(emulator, signer="VCEK")
    assert "names a VCEK as its key, but comes with a VLEK" in refused(wrong)


def revocations(root: Authority, *serials: int, days: int = 30) -> x509.CertificateRevocationList:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.ark.subject)
    builder = builder.last_update(now - timedelta(days=60)).next_update(now + timedelta(days=days))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(root.ark_key, hashes.SHA384(), rsa_padding=PSS)


def test_a_revoked_signing_key_is_refused() -> None:
    root = authority()
    emulator = Emulator(root)
    check(emulator, revocations=(revocations(root, 77),))
    serial = root.ask.serial_number
    assert "has been revoked" in refused(emulator, revocations=(revocations(root, serial),))
    assert "and current" in refused(emulator, revocations=(revocations(root, days=-1),))
    assert "and current" in refused(emulator, revocations=(revocations(authority("turin")),))
    forged = replace(root, ark_key=root.ask_key)
    assert "and current" in refused(emulator, revocations=(revocations(forged),))


def test_a_signing_key_of_another_root_is_refused() -> None:
    real, forged = authority(), authority("turin")
    mixed = replace(real, ask=replace(Emulator(real)).authority.ask, ask_key=forged.ask_key)
    assert "the VCEK is not signed by SEV-Milan" in refused(Emulator(mixed))


@pytest.mark.stress
def test_the_state_is_kept_in_a_folder(tmp_path: Path) -> None:
    authority().save(tmp_path)
    aggregator, demo = Emulator.at(tmp_path), Emulator.at(tmp_path)
    policy = policy_of(Authority.load(tmp_path))
    assert check(aggregator, policy).root == check(demo, policy).root == "test"
    assert (tmp_path / "ark.key").stat().st_mode & 0o077 == 0
    assert "TEST ONLY" in Authority.load(tmp_path).ark.subject.rfc4514_string()


def test_a_policy_is_not_valid_for_ever() -> None:
    today = datetime.now(UTC)
    policy = policy_of(authority())
    for changes in ({"not_before": today + timedelta(1)}, {"not_after": today - timedelta(1)}):
        assert "The policy is valid from" in refused(Emulator(authority()), replace(policy, **changes))


def test_a_key_of_another_curve_is_refused() -> None:
    emulator = Emulator(authority(), key=ec.generate_private_key(ec.SECP521R1()))
    good = Emulator(authority(), hardware_id=emulator.hardware_id).report(REPORT_DATA)
    held = (emulator.leaf(), emulator.authority.ask, emulator.authority.ark)
    chain = tuple(item.public_bytes(Encoding.DER) for item in held)
    with pytest.raises(AttestationError, match="not of the curve P-384"):
        verify(Evidence("sev-snp", good, chain), policy_of(authority()), report_data=None)
