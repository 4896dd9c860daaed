"""Inside the confidential VM: ask the processor for a report, or for a key of this guest alone.

Source: Linux, Documentation/ABI/testing/configfs-tsm and Documentation/virt/coco/sev-guest; the
certificate table is that of AMD's Guest Hypervisor Communication Block Standardization (56421).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import struct
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cordon.attestation.certificates import load, shipped
from cordon.attestation.evidence import Evidence
from cordon.attestation.snp_report import PRODUCTS, REPORT_BYTES
from cordon.errors import AttestationError

TSM = Path("/sys/kernel/config/tsm/report")
SEV_GUEST = Path("/dev/sev-guest")
DMI = Path("/sys/class/dmi/id")
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
PROVIDERS = {"sev_guest": "sev-snp", "tdx_guest": "tdx"}
ATTEMPTS = 5
ENTRY = struct.Struct("<16sII")
GUIDS = {
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
}
GET_DERIVED_KEY = 0xC0205301  # _IOWR('S', 1, struct snp_guest_request_ioctl)
GET_EXTENDED_REPORT = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl)
# Bits of MSG_KEY_REQ's GUEST_FIELD_SELECT (SEV-SNP firmware ABI, 56860).
POLICY, MEASUREMENT = 1 << 0, 1 << 3
KEY_BYTES, KEY_RESPONSE_BYTES = 32, 64
CERTIFICATES_BYTES = 0x4000
RESPONSE_BYTES = 4000

Ioctl = Callable[[int, int, Any], Any]


def collect(
    report_data: bytes, *, root: Path = TSM, device: Path = SEV_GUEST, dmi: Path = DMI,
    certificates: Sequence[bytes] = (), collateral: str = "", ioctl: Ioctl = fcntl.ioctl,
) -> Evidence:  # fmt: skip
    """Evidence about this guest that carries ``report_data`` (64 bytes).

    ``certificates`` (DER) stand in for a host that gives none of its own: VCEK or VLEK, and ASK and ARK
    unless they are AMD's that come with Cordon. ``collateral`` is Intel's, for TDX. The other
    arguments are for tests. Raises AttestationError where this is no guest that can attest itself.
    """
    if len(report_data) != 64:
        raise ValueError("report_data must have 64 bytes")
    if root.is_dir():
        kind, report, table = _configfs(report_data, root)
        if kind == "tdx":
            return Evidence(kind, report, (), collateral)
    elif device.exists():
        report, table = _sev_guest(report_data, device, ioctl)
    else:
        raise AttestationError(_absent(dmi))
    return Evidence("sev-snp", report, _chain(table, certificates))


def _configfs(report_data: bytes, root: Path) -> tuple[str, bytes, bytes]:
    """Kind, report and certificate table, of one generation: another writer's answer is not ours."""
    for _ in range(ATTEMPTS):
        entry = root / f"cordon-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            os.mkdir(entry)
        except OSError as error:
            raise AttestationError(f"{root}: no report can be asked for ({error}). Run as root.") from None
        try:
            kind = PROVIDERS.get((entry / "provider").read_text().strip())
            if kind is None:
                raise AttestationError(
                    f"{root}: its provider is none of {', '.join(PROVIDERS)}. Use an SEV-SNP or TDX guest."
                )
            (entry / "inblob").write_bytes(report_data)
            before = (entry / "generation").read_text()
            report = (entry / "outblob").read_bytes()
            table = _table(entry / "auxblob") if kind == "sev-snp" else b""
            if (entry / "generation").read_text() == before:
                return kind, report, table
        except BlockingIOError:
            continue  # another writer came between
        except OSError as error:
            raise AttestationError(f"{entry}: the kernel gave no report: {error}. Try again.") from None
        finally:
            with suppress(OSError):  # what is left there does no harm, and must not hide an error
                os.rmdir(entry)
    raise AttestationError(f"{root}: reports kept changing while they were read. Is something else using it?")


def _table(path: Path) -> bytes:
    """The host's certificates; it need not give any, and then there may be nothing to read."""
    try:
        return path.read_bytes()
    except BlockingIOError:
        raise
    except OSError:
        return b""


class _ReportRequest(ctypes.Structure):
    """struct snp_ext_report_req, with struct snp_report_req at its start."""

    _fields_ = (
        ("user_data", ctypes.c_ubyte * 64),
        ("vmpl", ctypes.c_uint32),
        ("reserved", ctypes.c_ubyte * 28),
        ("certificates", ctypes.c_uint64),
        ("certificates_bytes", ctypes.c_uint32),
    )


class _GuestRequest(ctypes.Structure):
    """struct snp_guest_request_ioctl."""

    _fields_ = (
        ("version", ctypes.c_uint8),
        ("request", ctypes.c_uint64),
        ("response", ctypes.c_uint64),
        ("error", ctypes.c_uint64),
    )


class _KeyRequest(ctypes.Structure):
    """struct snp_derived_key_req."""

    _fields_ = (
        ("root_key_select", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("guest_field_select", ctypes.c_uint64),
        ("vmpl", ctypes.c_uint32),
        ("guest_svn", ctypes.c_uint32),
        ("tcb_version", ctypes.c_uint64),
    )


def derived_key(*, device: Path = SEV_GUEST, ioctl: Ioctl = fcntl.ioctl) -> bytes:
    """A key of 32 bytes that this chip makes for guests of our launch measurement and policy, and no others.

    The policy is in it so that a guest of our measurement that its host may debug gets another key. Its root
    is the VCEK. Whoever may open ``device`` gets the key. Raises AttestationError where there is none.
    """
    request = _KeyRequest(guest_field_select=POLICY | MEASUREMENT)
    response = ctypes.create_string_buffer(KEY_RESPONSE_BYTES)
    _call(device, ioctl, GET_DERIVED_KEY, request, response, "no key")
    (status,) = struct.unpack_from("<I", response, 0)
    key = response.raw[32 : 32 + KEY_BYTES]
    ctypes.memset(response, 0, KEY_RESPONSE_BYTES)
    if status or not any(key):
        raise AttestationError(f"{device}: gave no key: status {status:#x}. Is this an SEV-SNP guest?")
    return key


def _call(
    device: Path, ioctl: Ioctl, command: int, request: ctypes.Structure, response: Any, nothing: str
) -> None:
    """One ioctl of /dev/sev-guest; AttestationError that says that it gave ``nothing``."""
    call = _GuestRequest(1, ctypes.addressof(request), ctypes.addressof(response), 0)
    try:
        with device.open("rb+", buffering=0) as handle:
            ioctl(handle.fileno(), command, call)
    except OSError as error:
        raise AttestationError(
            f"{device}: gave {nothing}: {error}, firmware error {call.error:#x}. Run as root; with the "
            "certificates of the host set if it says that there is no room."
        ) from None


def _sev_guest(report_data: bytes, device: Path, ioctl: Ioctl) -> tuple[bytes, bytes]:
    """Report and certificate table by the older ioctl, SNP_GET_EXT_REPORT."""
    table = ctypes.create_string_buffer(CERTIFICATES_BYTES)
    response = ctypes.create_string_buffer(RESPONSE_BYTES)
    request = _ReportRequest(certificates=ctypes.addressof(table), certificates_bytes=CERTIFICATES_BYTES)
    ctypes.memmove(request.user_data, report_data, len(report_data))
    _call(device, ioctl, GET_EXTENDED_REPORT, request, response, "no report")
    status, size = struct.unpack_from("<II", response, 0)
    if status or size != REPORT_BYTES:
        raise AttestationError(f"{device}: gave no report: status {status:#x}, {size} bytes. Try again.")
    return response.raw[32 : 32 + size], table.raw


def _chain(table: bytes, given: Sequence[bytes]) -> tuple[bytes, ...]:
    """VCEK or VLEK, ASK and ARK in DER, from the host's table, what was given, and what Cordon has."""
    held = parse_table(table)
    if given:
        return completed(given)
    leaf = held.get("VLEK") or held.get("VCEK")
    if leaf is None:
        raise AttestationError(
            "The host gives the guest no certificates. Fetch the VCEK from AMD's key distribution service "
            "once, for this chip and TCB, and give it to the aggregator."
        )
    return completed([leaf, *(held[name] for name in ("ASK", "ARK") if name in held)])


def completed(chain: Sequence[bytes]) -> tuple[bytes, ...]:
    """``chain`` of VCEK or VLEK, ASK and ARK; of the first alone, with AMD's others that come with Cordon."""
    if len(chain) == 3:
        return tuple(chain)
    issuer = load(chain[0]).issuer.rfc4514_string()
    for product in PRODUCTS:
        ask, ark = shipped(product)
        if ask.subject.rfc4514_string() == issuer:
            return (chain[0], ask.public_bytes(Encoding.DER), ark.public_bytes(Encoding.DER))
    raise AttestationError(f"The host gives no certificate of {issuer}. Give the aggregator the whole chain.")


def parse_table(table: bytes) -> dict[str, bytes]:
    """The certificates (DER) of the host's table by name; AttestationError where it is malformed."""
    held: dict[str, bytes] = {}
    for place in range(0, len(table) - ENTRY.size + 1, ENTRY.size):
        guid, start, size = ENTRY.unpack_from(table, place)
        if guid == bytes(16):
            break
        content = table[start : start + size]
        if len(content) != size or not size:
            raise AttestationError(
                "The host's certificate table is malformed: an entry lies outside it. "
                "Ask the host's operator to mend it, or give the VCEK with --evidence guest:VCEK."
            )
        if name := GUIDS.get(uuid.UUID(bytes=guid)):
            held[name] = _der(content)
    return held


def _der(content: bytes) -> bytes:
    """Some hosts put PEM into the table."""
    if not content.startswith(b"-----BEGIN"):
        return content
    try:
        return x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
    except ValueError:
        raise AttestationError(
            "The host's certificate table holds a malformed certificate. "
            "Ask the host's operator to mend it, or give the VCEK with --evidence guest:VCEK."
        ) from None


def _absent(dmi: Path) -> str:
    tag = dmi / "chassis_asset_tag"
    if tag.is_file() and tag.read_text().strip() == AZURE_TAG:
        return (
            "This is a VM of Azure, whose confidential VMs attest through a vTPM: the report there carries "
            "Azure's own hash instead of this aggregator's key. Cordon cannot verify that yet: use a VM with "
            "/sys/kernel/config/tsm/report or /dev/sev-guest."
        )
    return (
        "This is no confidential VM, or its kernel is too old: neither /sys/kernel/config/tsm/report nor "
        "/dev/sev-guest is there. Use Linux 6.7 or newer in an SEV-SNP or TDX guest, with configfs mounted."
    )
