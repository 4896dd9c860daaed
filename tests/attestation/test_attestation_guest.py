"""Tests of cordon.attestation.guest, on a double of configfs-tsm and of the ioctl of /dev/sev-guest."""

from __future__ import annotations

import ctypes
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation_lab import REPORT_DATA, authority, needs_real, policy_of, virtee
from cordon.attestation import guest
from cordon.attestation.emulator import Emulator
from cordon.attestation.verify import verify
from cordon.errors import AttestationError
from doubles.configfs import Configfs

VCEK, VLEK, ASK, ARK = (
    uuid.UUID(text)
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd", "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782", "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    )
)  # fmt: skip


def table(**certificates: bytes) -> bytes:
    """The host's certificate table: GUID, offset and length of each, zeros, then the certificates."""
    start, heads, body = 24 * (len(certificates) + 1), b"", b""
    for name, content in certificates.items():
        guid = {"vcek": VCEK, "vlek": VLEK, "ask": ASK, "ark": ARK}.get(name, uuid.UUID(int=7))
        heads += guid.bytes + struct.pack("<II", start + len(body), len(content))
        body += content
    return heads + bytes(24) + body


def full_table(emulator: Emulator) -> bytes:
    leaf, ask, ark = emulator.collect(REPORT_DATA).certificates
    return table(other=b"x", ark=ark, ask=ask, **{"vlek" if emulator.authority.vlek else "vcek": leaf})


@pytest.mark.stress
@pytest.mark.parametrize("vlek", [False, True])
def test_configfs_gives_evidence_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vlek: bool
) -> None:
    emulator = Emulator(authority("milan", vlek))
    root = tmp_path / "report"
    kernel = Configfs(root, monkeypatch, emulator.report, full_table(emulator))

    evidence = guest.collect(REPORT_DATA, root=root)

    verify(evidence, policy_of(emulator.authority), report_data=REPORT_DATA)
    assert len(kernel.made) == 1
    assert list(root.iterdir()) == []


def test_a_report_of_another_writer_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = Emulator(authority())
    root = tmp_path / "report"
    kernel = Configfs(root, monkeypatch, emulator.report, full_table(emulator), meddle=2)
    guest.collect(REPORT_DATA, root=root)
    assert len(kernel.made) == 3
    kernel.meddle = 99
    with pytest.raises(AttestationError, match="kept changing"):
        guest.collect(REPORT_DATA, root=root)
    assert list(root.iterdir()) == []


def test_tdx_comes_with_the_collateral_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "report"
    Configfs(root, monkeypatch, lambda asked: b"quote" + asked, provider="tdx_guest")
    evidence = guest.collect(REPORT_DATA, root=root, collateral="{}")
    assert (evidence.kind, evidence.report, evidence.collateral) == ("tdx", b"quote" + REPORT_DATA, "{}")


def test_an_unknown_provider_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "report"
    Configfs(root, monkeypatch, lambda asked: asked, provider="arm_cca_guest")
    with pytest.raises(AttestationError, match="none of sev_guest, tdx_guest"):
        guest.collect(REPORT_DATA, root=root)


@needs_real
def test_amds_own_certificates_complete_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = virtee()
    root = tmp_path / "report"
    kernel = Configfs(root, monkeypatch, lambda asked: real.report, table(vcek=real.certificates[0]))
    assert guest.collect(REPORT_DATA, root=root) == real
    kernel.table = b""
    assert guest.collect(REPORT_DATA, root=root, certificates=real.certificates[:1]) == real
    with pytest.raises(AttestationError, match="gives the guest no certificates"):
        guest.collect(REPORT_DATA, root=root)


def test_a_table_may_hold_pem(tmp_path: Path) -> None:
    ark = authority().ark
    held = guest.parse_table(table(ark=ark.public_bytes(Encoding.PEM)))
    assert x509.load_der_x509_certificate(held["ARK"]) == ark


@pytest.mark.parametrize(
    "content",
    [
        VCEK.bytes + struct.pack("<II", 2**32 - 1, 8),
        VCEK.bytes + struct.pack("<II", 0, 2**32 - 1),
        VCEK.bytes + struct.pack("<II", 24, 0),
        VCEK.bytes + struct.pack("<II", 24, 10) + b"-----BEGIN",
    ],
)
def test_a_malformed_table_is_refused(content: bytes) -> None:
    with pytest.raises(AttestationError, match="malformed"):
        guest.parse_table(content)


def test_the_older_ioctl_gives_evidence_that_verifies(tmp_path: Path) -> None:
    emulator = Emulator(authority())
    device = tmp_path / "sev-guest"
    device.touch()

    def ioctl(descriptor: int, command: int, call: Any) -> int:
        """The driver: struct snp_guest_request_ioctl points to request and response."""
        assert (command, ctypes.sizeof(call), call.version) == (0xC0205302, 32, 1)
        request = ctypes.string_at(call.request, 112)  # 96 of snp_report_req, address, length, padding
        asked, vmpl, reserved, address, size = struct.unpack("<64sI28sQI4x", request)
        assert (vmpl, reserved) == (0, bytes(28))
        held = full_table(emulator)
        assert len(held) <= size
        ctypes.memmove(address, held, len(held))
        answer = struct.pack("<II24x", 0, 1184) + emulator.report(asked)
        ctypes.memmove(call.response, answer, len(answer))
        return 0

    evidence = guest.collect(REPORT_DATA, root=tmp_path / "none", device=device, ioctl=ioctl)
    verify(evidence, policy_of(emulator.authority), report_data=REPORT_DATA)


def test_a_refusal_of_the_driver_is_told(tmp_path: Path) -> None:
    device = tmp_path / "sev-guest"
    device.touch()

    def ioctl(descriptor: int, command: int, call: Any) -> int:
        call.error = 0x16
        raise OSError(5, "Input/output error")

    with pytest.raises(AttestationError, match="Input/output error, firmware error 0x16"):
        guest.collect(REPORT_DATA, root=tmp_path / "none", device=device, ioctl=ioctl)
    with pytest.raises(AttestationError, match="status 0x0, 0 bytes"):
        guest.collect(REPORT_DATA, root=tmp_path / "none", device=device, ioctl=lambda *_: 0)


def test_the_derived_key_is_bound_to_measurement_and_policy(tmp_path: Path) -> None:
    device = tmp_path / "sev-guest"
    device.touch()
    key = bytes(range(1, 33))

    def ioctl(descriptor: int, command: int, call: Any) -> int:
        """The driver: include/uapi/linux/sev-guest.h, and MSG_KEY_REQ and MSG_KEY_RSP of the firmware."""
        assert (command, ctypes.sizeof(call), call.version) == (0xC0205301, 32, 1)
        root, reserved, fields, vmpl, svn, tcb = struct.unpack("<IIQIIQ", ctypes.string_at(call.request, 32))
        assert (root, reserved, vmpl, svn, tcb) == (0, 0, 0, 0, 0)
        assert fields == 0b001001  # measurement, guest policy
        ctypes.memmove(call.response, struct.pack("<I28x", 0) + key, 64)
        return 0

    assert guest.derived_key(device=device, ioctl=ioctl) == key


def test_no_key_is_no_key_of_zeros(tmp_path: Path) -> None:
    device = tmp_path / "sev-guest"
    device.touch()

    def refuse(descriptor: int, command: int, call: Any) -> int:
        ctypes.memmove(call.response, struct.pack("<I28x", 0x16) + bytes(range(32)), 64)
        return 0

    with pytest.raises(AttestationError, match="gave no key: status 0x16"):
        guest.derived_key(device=device, ioctl=refuse)
    with pytest.raises(AttestationError, match="gave no key: status 0x0"):
        guest.derived_key(device=device, ioctl=lambda *_: 0)
    with pytest.raises(AttestationError, match=r"gave no key: .*No such file"):
        guest.derived_key(device=tmp_path / "none")


def test_azure_and_plain_machines_are_told_apart(tmp_path: Path) -> None:
    absent = {"root": tmp_path / "none", "device": tmp_path / "none", "dmi": tmp_path}
    with pytest.raises(AttestationError, match="This is no confidential VM"):
        guest.collect(REPORT_DATA, **absent)
    (tmp_path / "chassis_asset_tag").write_text("7783-7084-3265-9085-8269-3286-77\n")
    with pytest.raises(AttestationError, match="a VM of Azure, whose confidential VMs attest through a vTPM"):
        guest.collect(REPORT_DATA, **absent)


def test_report_data_have_64_bytes() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        guest.collect(b"short")
