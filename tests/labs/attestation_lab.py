"""Real and emulated evidence, and policies for it, for the tests of cordon.attestation."""

from __future__ import annotations

import ssl
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from conftest import SHARED
from cordon.attestation.binding import report_data
from cordon.attestation.certificates import amd_roots, fingerprint
from cordon.attestation.emulator import MEASUREMENT, SECURITY_VERSION, Authority, Emulator
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import IntelPolicy, Policy, SnpPolicy
from cordon.attestation.snp_report import TCB_LAYOUT

REAL = SHARED / "attestation"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/attestation is not on this machine")
MASKS = (0x01, 0x80, 0xFF)
NOW = datetime(2026, 7, 15, tzinfo=UTC)
# The collateral of the Intel quotes is of 2025-06-19 to 2025-07-19.
INTEL_NOW = datetime(2025, 6, 20, 12, tzinfo=UTC)
REPORT_DATA = bytes(range(64))
MILAN_TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
TURIN_TCB = {"fmc": 1, "bootloader": 3, "tee": 2, "snp": 5, "microcode": 97}
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


def turin() -> Evidence:
    folder = REAL / "sev_snp"
    report = (folder / "turin_report_v5.bin").read_bytes()
    return Evidence("sev-snp", report, ((folder / "turin_vcek_v5.der").read_bytes(), *real_chain("turin")))


def production(evidence: Evidence, **changes: Any) -> Policy:
    """AMD's roots, and the measurement that ``evidence`` has."""
    held: dict[str, Any] = {
        "roots": amd_roots(), "measurements": frozenset([evidence.report[0x90:0xC0]]),
        "minimum_tcb": {"milan": MILAN_TCB, "turin": TURIN_TCB},
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


@dataclass
class Identity:
    """A TLS key with its self-signed certificate, in one PEM file."""

    path: Path
    certificate: x509.Certificate

    @property
    def spki(self) -> bytes:
        return self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def identity(path: Path) -> Identity:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "aggregator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .sign(key, hashes.SHA384())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return Identity(path, certificate)


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def serving(held: Identity, answer: Answer) -> Iterator[str]:
    """A TLS server that gives each nonce to ``answer``; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            assert asked.path == "/attestation"
            answer(self, bytes.fromhex(parse_qs(asked.query)["nonce"][0]))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients break off on purpose
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(held.path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def evidence_of(emulator: Emulator, held: Identity, nonce: bytes) -> bytes:
    return emulator.collect(report_data(held.spki, nonce)).to_json().encode()


def firmware(path: Path) -> Path:
    """64 kB with the tables of an OVMF built for SEV-SNP with kernel hashes, at its real places."""
    guids = {
        "reset": ("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004)),
        "hashes": ("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x810C00, 0x400)),
        "metadata": ("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", 0x1000)),
    }
    table = b"".join(
        held + struct.pack("<H", len(held) + 18) + uuid.UUID(guid).bytes_le for guid, held in guids.values()
    )
    footer = struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    sections = [(0x800000, 0x9000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3), (0x810000, 0x1000, 0x10)]
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    image = bytearray(64 * 1024)
    image[-0x1000 : -0x1000 + len(metadata)] = metadata
    image[-32 - len(table) - len(footer) : -32] = table + footer
    path.write_bytes(image)
    return path
