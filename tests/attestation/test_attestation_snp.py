"""Tests of cordon.attestation on real SEV-SNP evidence of AMD's Milan."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509

from attestation_lab import (
    MASKS,
    MILAN_TCB,
    NOW,
    REAL,
    TURIN_TCB,
    flipped,
    needs_real,
    production,
    real_chain,
    trustee,
    turin,
    virtee,
)
from cordon.attestation.binding import report_data
from cordon.attestation.certificates import amd_roots, endorsement
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import Policy
from cordon.attestation.verify import genuine, verify
from cordon.errors import AttestationError

pytestmark = needs_real
EACH = pytest.mark.parametrize("real", [virtee, trustee, turin])
BOTH = pytest.mark.parametrize("real", [virtee, trustee])


def refused(evidence: Evidence, policy: Policy, carried: bytes | None = None) -> str:
    with pytest.raises(AttestationError) as caught:
        verify(evidence, policy, report_data=carried, now=NOW)
    return str(caught.value)


@BOTH
def test_a_real_report_verifies(real: Callable[[], Evidence]) -> None:
    evidence = real()
    carried = evidence.report[0x50:0x90]

    found = verify(evidence, production(evidence), report_data=carried, now=NOW)

    assert (found.product, found.root, found.test_only, found.signer) == ("milan", "amd-milan", False, "VCEK")
    assert found.tcb == MILAN_TCB
    assert bytes.fromhex(found.measurement) == evidence.report[0x90:0xC0]
    assert genuine(evidence, report_data=carried, now=NOW) == found


def test_a_real_report_of_turin_verifies() -> None:
    evidence = turin()
    carried = evidence.report[0x50:0x90]

    found = verify(evidence, production(evidence), report_data=carried, now=NOW)

    assert (found.product, found.version, found.root, found.tcb) == ("turin", 5, "amd-turin", TURIN_TCB)
    assert found.platform_info == ("smt", "ecc", "alias_check_complete", "iommu_write_safe")
    assert found.launch_mitigations == found.current_mitigations == (0, 1, 2, 3, 4, 5)
    assert found.unknown == ()
    assert genuine(evidence, report_data=carried, now=NOW) == found
    allowed = {"platform_info": frozenset(["smt", "ecc"])}
    assert "'alias_check_complete', which the policy does not" in refused(
        evidence, production(evidence, **allowed)
    )


@EACH
@pytest.mark.parametrize("mask", MASKS)
def test_a_report_with_any_byte_changed_is_refused(real: Callable[[], Evidence], mask: int) -> None:
    evidence = real()
    accepted = []
    for place in range(len(evidence.report)):
        try:
            # Nothing of the guest is judged here: signature, chain and layout alone must catch it.
            genuine(
                replace(evidence, report=flipped(evidence.report, place, mask)), report_data=None, now=NOW
            )
            accepted.append(place)
        except AttestationError:
            pass
    assert accepted == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_chain_with_any_byte_changed_is_refused(which: int) -> None:
    evidence = virtee()
    accepted = []
    for place in range(len(evidence.certificates[which])):
        chain = list(evidence.certificates)
        chain[which] = flipped(chain[which], place)
        try:
            genuine(replace(evidence, certificates=tuple(chain)), report_data=None, now=NOW)
            accepted.append(place)
        except AttestationError:
            pass
    assert accepted == []


def test_a_chain_with_certificates_swapped_or_of_another_product_is_refused() -> None:
    evidence, policy = virtee(), production(virtee())
    vcek, ask, ark = evidence.certificates
    turin_ask, turin_ark = real_chain("turin")
    others = [
        (vcek, ark, ask), (ask, vcek, ark), (ark, ask, vcek), (vcek, ask, ask), (vcek, ark, ark),
        (vcek, turin_ask, turin_ark), (vcek, ask, turin_ark), (vcek, turin_ask, ark),
        (trustee().certificates[0], ask, ark),
    ]  # fmt: skip
    for chain in others:
        assert "refused" in refused(replace(evidence, certificates=chain), policy)


@BOTH
def test_a_report_of_another_key_or_nonce_is_refused(real: Callable[[], Evidence]) -> None:
    evidence = real()
    carried = evidence.report[0x50:0x90]
    wrong = [
        report_data(b"key", b"nonce"),
        flipped(carried, 0),
        flipped(carried, 63),
        bytes(64),
        b"",
        carried[:63],
    ]
    for other in wrong:
        assert "not about this connection" in refused(evidence, production(evidence), other)


def test_report_data_tell_key_and_nonce_apart() -> None:
    made = {report_data(*pair) for pair in [(b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"abc", b"")]}
    assert len(made) == 4
    assert all(len(item) == 64 for item in made)
    # SHA-512 of the three parts, each after its length as 8 bytes: computed by hand with hashlib.
    assert report_data(b"ab", b"c").hex()[:32] == "0eed54829a745c8ef12fdb981aa88090"


@pytest.mark.parametrize("name", ["legacy", "new"])
def test_an_invalid_vcek_is_refused(name: str) -> None:
    evidence = trustee()
    vcek = (REAL / "sev_snp" / f"test-vcek-invalid-{name}.der").read_bytes()
    changed = replace(evidence, certificates=(vcek, *real_chain()))
    assert "the VCEK is not signed by SEV-Milan" in refused(changed, production(evidence))


def test_a_real_vcek_of_turin_has_its_layout() -> None:
    vcek = (REAL / "sev_snp" / "vcek_turin.der").read_bytes()

    found = endorsement((vcek, *real_chain("turin")), amd_roots(), NOW)

    assert (found.product, found.signer, found.root) == ("turin", "VCEK", "amd-turin")
    assert found.tcb == {"fmc": 0, "bootloader": 0, "tee": 0, "snp": 0, "microcode": 9}
    assert found.hardware_id.hex() == "1e550a8ee5cf9f4d"


def test_the_warning_of_serial_number_0_is_silenced_and_no_other_filter_is_touched() -> None:
    evidence = virtee()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        genuine(evidence, report_data=None, now=NOW)
        assert seen == []
        assert warnings.filters == filters
        x509.load_der_x509_certificate(evidence.certificates[0])
    assert ["serial number" in str(item.message) for item in seen] == [True]


@pytest.mark.parametrize("day", [datetime(2023, 4, 3, tzinfo=UTC), datetime(2030, 4, 4, tzinfo=UTC)])
def test_certificates_hold_for_their_time_alone(day: datetime) -> None:
    evidence = virtee()  # its VCEK is valid from 2023-04-03 19:23 to 2030-04-03 19:23
    with pytest.raises(AttestationError, match="the VCEK is valid from 2023-04-03 to 2030-04-03"):
        verify(evidence, production(evidence), report_data=None, now=day)


def test_a_policy_refuses_what_it_does_not_allow() -> None:
    evidence = trustee()
    digest = frozenset([bytes(48)])
    for changes, reason in [
        ({"measurements": digest}, "the measurement a1f39304"),
        ({"minimum_guest_svn": 5}, "its guest SVN is 4, under 5"),
        ({"family_id": bytes(16)}, "its family_id is 01000000"),
        ({"image_id": bytes(16)}, "its image_id is 02000000"),
        ({"host_data": b"\1" * 32}, "its host_data is 00000000"),
        ({"id_key_digests": digest}, "its id_key_digest 0356215882"),
        ({"author_key_digests": digest}, "no author key signed"),
        ({"minimum_tcb": {"milan": MILAN_TCB | {"snp": 9}}}, "its reported TCB is under"),
        ({"minimum_tcb": {"milan": MILAN_TCB | {"microcode": 116}}}, "microcode 115 < 116"),
        ({"minimum_tcb": {"genoa": MILAN_TCB}}, "the policy gives no minimum TCB for milan"),
        ({"roots": {}}, "is not one that the policy pins"),
    ]:
        assert reason in refused(evidence, production(evidence, **changes))
    pinned = {"id_key_digests": frozenset([evidence.report[0xE0:0x110]]), "minimum_guest_svn": 4}
    verify(evidence, production(evidence, **pinned), report_data=None, now=NOW)


def test_evidence_of_a_kind_that_the_policy_does_not_name_is_refused() -> None:
    assert "no section [sev_snp]" in refused(virtee(), Policy())
