"""SEV-SNP without the hardware, for tests and demos: reports of the same layout under a TEST ONLY root.

It proves nothing about any machine, and no policy without ``test_only = true`` accepts it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from cordon.attestation.certificates import (
    HARDWARE_ID,
    PRODUCT_NAME,
    PROVIDER,
    SALT_BYTES,
    TCB_OIDS,
    TEST_ONLY,
    fingerprint,
)
from cordon.attestation.evidence import Evidence
from cordon.attestation.snp_report import (
    HARDWARE_ID_BYTES,
    POLICY_DEBUG,
    POLICY_MIGRATION,
    POLICY_MUST_BE_ONE,
    REPORT_BYTES,
    SIGNED_BYTES,
    TCB_LAYOUT,
)

MEASUREMENT = bytes.fromhex("7e57" * 24)
CPUS = {"milan": (0x19, 0x01, 1), "genoa": (0x19, 0x11, 1), "turin": (0x1A, 0x02, 1)}
SECURITY_VERSION = {"fmc": 1, "bootloader": 4, "tee": 0, "snp": 22, "microcode": 213}
VALID_DAYS = 3650
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), SALT_BYTES)


@dataclass(frozen=True)
class Authority:
    """A TEST ONLY root and signing key for one product, ASVK with ``vlek``; made once, as RSA takes time."""

    product: str
    vlek: bool
    ark_key: rsa.RSAPrivateKey
    ark: x509.Certificate
    ask_key: rsa.RSAPrivateKey
    ask: x509.Certificate

    @classmethod
    def make(cls, product: str = "milan", *, vlek: bool = False) -> Authority:
        name = product.capitalize()
        ark_key, ask_key = (rsa.generate_private_key(65537, 4096) for _ in range(2))
        root = _name(f"ARK-{name}")
        ark = _authority(root, root, ark_key, ark_key)
        ask = _authority(_name(f"SEV-VLEK-{name}" if vlek else f"SEV-{name}"), root, ask_key, ark_key)
        return cls(product, vlek, ark_key, ark, ask_key, ask)

    def save(self, folder: Path) -> None:
        """Write keys (readable by their owner alone) and certificates below ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, key, certificate in (("ark", self.ark_key, self.ark), ("ask", self.ask_key, self.ask)):
            content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            with os.fdopen(os.open(folder / f"{name}.key", _PRIVATE, 0o600), "wb") as handle:
                handle.write(content)
            (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read what `save` wrote; its ``ark.pem`` is what a test's policy pins."""
        keys, certificates = [], []
        for name in ("ark", "ask"):
            key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
            assert isinstance(key, rsa.RSAPrivateKey)
            keys.append(key)
            certificates.append(x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()))
        ark, ask = certificates
        vlek = "SEV-VLEK-" in ask.subject.rfc4514_string()
        product = ark.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return cls(str(product).removeprefix("ARK-").lower(), vlek, keys[0], ark, keys[1], ask)


@dataclass
class Emulator:
    """A processor and a guest on it; every field is what its report or its certificate will say.

    ``leaf_tcb`` and ``chip_id`` None follow the report's; ``patch`` overwrites bytes of the report by
    offset, before it is signed. AMD's VCEKs have serial number 0, which `cryptography` does not write:
    these have 1.
    """

    authority: Authority
    version: int = 3
    measurement: bytes = MEASUREMENT
    debug: bool = False
    migration_agent: bool = False
    vmpl: int = 0
    guest_svn: int = 0
    tcb: Mapping[str, int] = field(default_factory=lambda: dict(SECURITY_VERSION))
    launch_tcb: Mapping[str, int] | None = None
    leaf_tcb: Mapping[str, int] | None = None
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    mask_chip_key: bool = False
    signer: str | None = None
    chip_id: bytes | None = None
    provider: str = "Cordon TEST ONLY"
    patch: Mapping[int, bytes] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    hardware_id: bytes = field(default_factory=lambda: secrets.token_bytes(64))

    @classmethod
    def at(cls, folder: Path, product: str = "milan") -> Emulator:
        """An emulator of the authority kept in ``folder``, which is made if it is not there."""
        if not (folder / "ask.pem").exists():
            Authority.make(product).save(folder)
        return cls(Authority.load(folder))

    def collect(self, report_data: bytes) -> Evidence:
        """As `guest.collect`."""
        certificates = (self.leaf(), self.authority.ask, self.authority.ark)
        return Evidence(
            "sev-snp",
            self.report(report_data),
            tuple(item.public_bytes(Encoding.DER) for item in certificates),
        )

    @property
    def _hardware_id(self) -> bytes:
        return self.hardware_id[: HARDWARE_ID_BYTES[self.authority.product]]

    def write_policy(self, path: Path, **keys: str) -> Path:
        """A TEST ONLY policy.toml that this emulator satisfies; the root is pinned by its public key's hash.

        ``keys`` of [sev_snp], as TOML, go before its own.
        """
        table = {
            "roots": f'["sha256:{fingerprint(self.authority.ark)}"]',
            "measurements": f'["{self.measurement.hex()}"]',
        } | keys
        product = self.authority.product
        minimum = "\n".join(f"{part} = {self.tcb[part]}" for part in TCB_LAYOUT[product])
        lines = "\n".join(f"{name} = {value}" for name, value in table.items())
        path.write_text(f"test_only = true\n[sev_snp]\n{lines}\n[sev_snp.minimum_tcb.{product}]\n{minimum}\n")
        return path

    def report(self, report_data: bytes) -> bytes:
        """1,184 bytes, signed by ``key``."""
        raw = bytearray(REPORT_BYTES)
        product = self.authority.product
        policy = POLICY_MUST_BE_ONE | self.debug * POLICY_DEBUG | self.migration_agent * POLICY_MIGRATION
        vlek = self.authority.vlek if self.signer is None else self.signer == "VLEK"
        key_info = any(self.author_key_digest) | self.mask_chip_key << 1 | vlek << 2
        tcb, launch = _tcb(self.tcb, product), _tcb(self.launch_tcb or self.tcb, product)
        chip = self._hardware_id.ljust(64, b"\0") if self.chip_id is None else self.chip_id
        fields = {
            0x00: _word(self.version), 0x04: _word(self.guest_svn), 0x08: policy.to_bytes(8, "little"),
            0x30: _word(self.vmpl), 0x34: _word(1), 0x38: tcb, 0x40: _word(1), 0x48: _word(key_info),
            0x50: report_data, 0x90: self.measurement, 0xC0: self.host_data, 0xE0: self.id_key_digest,
            0x110: self.author_key_digest, 0x140: secrets.token_bytes(32), 0x160: b"\xff" * 32,
            0x180: tcb, 0x1A0: chip, 0x1E0: tcb, 0x1F0: launch,
        }  # fmt: skip
        if self.version > 2:
            fields[0x188] = bytes(CPUS[product])
        if self.version >= 5:
            fields[0x1F8] = fields[0x200] = (1).to_bytes(8, "little")
        for start, content in (fields | dict(self.patch)).items():
            raw[start : start + len(content)] = content
        return sign(bytes(raw), self.key)

    def leaf(self) -> x509.Certificate:
        """The VCEK or VLEK, with AMD's extensions."""
        authority = self.authority
        tcb = self.leaf_tcb or self.tcb
        extensions = {PRODUCT_NAME: _ia5(authority.product.capitalize())}
        extensions |= {TCB_OIDS[part]: _integer(tcb[part]) for part in TCB_LAYOUT[authority.product]}
        extensions |= {PROVIDER: _ia5(self.provider)} if authority.vlek else {HARDWARE_ID: self._hardware_id}
        subject = _name("SEV-VLEK" if authority.vlek else "SEV-VCEK")
        builder = _builder(subject, authority.ask.subject, self.key.public_key())
        for oid, content in extensions.items():
            value = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content)
            builder = builder.add_extension(value, critical=False)
        return builder.sign(authority.ask_key, hashes.SHA384(), rsa_padding=PSS)


def sign(report: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """``report`` with its signature by ``key``: r and s little-endian, each in 72 bytes."""
    signed = report[:SIGNED_BYTES]
    numbers = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = b"".join(number.to_bytes(72, "little") for number in numbers)
    return (signed + signature).ljust(REPORT_BYTES, b"\0")


_PRIVATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _authority(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, by: rsa.RSAPrivateKey
) -> x509.Certificate:
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _builder(subject, issuer, key.public_key()).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(by, hashes.SHA384(), rsa_padding=PSS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Cordon emulator, {TEST_ONLY}"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _tcb(parts: Mapping[str, int], product: str) -> bytes:
    raw = bytearray(8)
    for part, place in TCB_LAYOUT[product].items():
        raw[place] = parts[part]
    return bytes(raw)


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _integer(value: int) -> bytes:
    return bytes((2, 1, value)) if value < 128 else bytes((2, 2, 0, value))


def _ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")
