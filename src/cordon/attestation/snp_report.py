"""The SEV-SNP attestation report, byte by byte.

Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), tables "ATTESTATION_REPORT
Structure", "TCB_VERSION", "Guest Policy" and "Signature Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from cordon.errors import AttestationError

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
VERSIONS = (2, 3, 5)
ECDSA_P384_SHA384 = 1
SIGNERS = {0: "VCEK", 1: "VLEK"}
TCB_PARTS = ("fmc", "bootloader", "tee", "snp", "microcode")

# Place of each part in the eight bytes of a TCB version; the other bytes are reserved.
TCB_LAYOUT = {
    "milan": {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "genoa": {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "turin": {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}
PRODUCTS = tuple(TCB_LAYOUT)
HARDWARE_ID_BYTES = {"milan": 64, "genoa": 64, "turin": 8}

# CPUID family, and models from and to; Bergamo and Siena are Genoa's to AMD's key service.
MODELS = (
    ("milan", 0x19, 0x00, 0x0F),
    ("genoa", 0x19, 0x10, 0x1F),
    ("genoa", 0x19, 0xA0, 0xAF),
    ("turin", 0x1A, 0x00, 0x11),
)

# Every signed byte that the specification leaves reserved, by report version; newer firmware may use it.
_RESERVED = ((0x4C, 0x50), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0))
RESERVED = {
    2: (*_RESERVED, (0x188, 0x1A0), (0x1F8, 0x208)),
    3: (*_RESERVED, (0x18B, 0x1A0), (0x1F8, 0x208)),
    5: (*_RESERVED, (0x18B, 0x1A0)),
}
# Bits of the guest policy that mean something; the rest is reserved.
POLICY_BITS = (1 << 26) - 1
# AMD's names of the bits of the platform info, each with the first version of the report that has it.
PLATFORM_INFO = {
    0: ("smt", 2), 1: ("tsme", 2), 2: ("ecc", 2), 3: ("rapl_disabled", 2), 4: ("ciphertext_hiding_dram", 2),
    5: ("alias_check_complete", 3), 6: ("iommu_write_safe", 5), 7: ("tio", 5),
}  # fmt: skip
MITIGATIONS_VERSION = 5
KEY_INFO_BITS = 4
POLICY_MUST_BE_ONE = 1 << 17
POLICY_MIGRATION = 1 << 18
POLICY_DEBUG = 1 << 19


@dataclass(frozen=True)
class Report:
    """The fields of a report that a verifier looks at; digests and identities as they stand.

    ``platform_info`` names the bits that are set, ``bit9`` where AMD names none. The mitigation vectors (None
    before version 5) are the numbers of the mitigations that the firmware has, at launch and now.
    ``unknown`` says what the report holds beyond what its version had when this was written: newer firmware
    of AMD's may set it, so it does not tell against the report, and a policy decides on it.
    """

    version: int
    product: str | None
    guest_svn: int
    guest_policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform_info: tuple[str, ...]
    author_key: bool
    mask_chip_key: bool
    signer: str
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id_ma: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    chip_id: bytes
    launch_mitigations: tuple[int, ...] | None
    current_mitigations: tuple[int, ...] | None
    unknown: tuple[str, ...]
    r: int
    s: int

    @property
    def debug(self) -> bool:
        return bool(self.guest_policy & POLICY_DEBUG)

    @property
    def migration_agent(self) -> bool:
        """Whether one may be associated, or one is: REPORT_ID_MA is all ones where there is none."""
        return bool(self.guest_policy & POLICY_MIGRATION) or self.report_id_ma != b"\xff" * 32

    @classmethod
    def parse(cls, raw: bytes) -> Report:
        """Read ``raw``; AttestationError unless it is a whole report of the first version or a later one.

        What AMD reserved is not judged here: see ``unknown``. AMD has only ever added to the layout, so an
        unknown version is read as the last known one before it.
        """
        if len(raw) != REPORT_BYTES:
            _refuse(f"has {len(raw)} bytes instead of {REPORT_BYTES}")
        version = _number(raw, 0x00, 4)
        if version < VERSIONS[0]:
            _refuse(f"is of version {version}; known are {', '.join(map(str, VERSIONS))}")
        if (algorithm := _number(raw, 0x34, 4)) != ECDSA_P384_SHA384:
            _refuse(f"is signed by algorithm {algorithm}; only ECDSA P-384 with SHA-384 (1) is known")
        key_info = _number(raw, 0x48, 4)
        signer = SIGNERS.get(key_info >> 2 & 0b111)
        if signer is None:
            _refuse(f"names no signing key that is known (key info {key_info:#x})")
        guest_policy = _number(raw, 0x08, 8)
        if not guest_policy & POLICY_MUST_BE_ONE:
            _refuse(f"lacks the bit of the guest policy {guest_policy:#x} that is always one")
        told = version >= MITIGATIONS_VERSION
        r, s = _signature(raw)
        return cls(
            version=version, product=None if version == 2 else product_of(raw[0x188], raw[0x189]),
            guest_svn=_number(raw, 0x04, 4), guest_policy=guest_policy,
            family_id=raw[0x10:0x20], image_id=raw[0x20:0x30], vmpl=_number(raw, 0x30, 4),
            platform_info=tuple(PLATFORM_INFO.get(bit, (f"bit{bit}",))[0] for bit in _bits(raw, 0x40)),
            launch_mitigations=_bits(raw, 0x1F8) if told else None,
            current_mitigations=_bits(raw, 0x200) if told else None,
            unknown=tuple(_unknown(raw, version)), author_key=bool(key_info & 1),
            mask_chip_key=bool(key_info & 2), signer=signer,
            report_data=raw[0x50:0x90], measurement=raw[0x90:0xC0],
            host_data=raw[0xC0:0xE0], id_key_digest=raw[0xE0:0x110], author_key_digest=raw[0x110:0x140],
            report_id_ma=raw[0x160:0x180], current_tcb=raw[0x38:0x40], reported_tcb=raw[0x180:0x188],
            committed_tcb=raw[0x1E0:0x1E8], launch_tcb=raw[0x1F0:0x1F8], chip_id=raw[0x1A0:0x1E0],
            r=r, s=s,
        )  # fmt: skip


def documented(version: int) -> frozenset[str]:
    """The names of the bits of the platform info that reports of ``version`` may have set."""
    return frozenset(name for name, since in PLATFORM_INFO.values() if since <= version)


def tcb_parts(raw: bytes, product: str) -> dict[str, int]:
    """The security version of each part of ``product``'s firmware in ``raw`` (8 bytes)."""
    return {name: raw[place] for name, place in TCB_LAYOUT[product].items()}


def tcb_unknown(raw: bytes, product: str) -> bool:
    """Whether ``raw`` (8 bytes) has a part that ``product``'s firmware is not known to have."""
    return any(byte for place, byte in enumerate(raw) if place not in TCB_LAYOUT[product].values())


def product_of(family: int, model: int) -> str | None:
    """The product of a CPUID family and model, None where SEV-SNP keys are not known for it."""
    for product, its_family, low, high in MODELS:
        if family == its_family and low <= model <= high:
            return product
    return None


def _unknown(raw: bytes, version: int) -> Iterator[str]:
    """Each thing that a report of ``version`` has set and is not known to have, in words for a policy."""
    layout = max(known for known in VERSIONS if known <= version)
    if layout != version:
        yield f"version {version}"
    if version > 2 and product_of(raw[0x188], raw[0x189]) is None:
        yield f"cpu family {raw[0x188]:#x} model {raw[0x189]:#x}"
    yield from (f"guest_policy bit {bit}" for bit in _bits(raw, 0x08) if not POLICY_BITS >> bit & 1)
    yield from (f"key_info bit {bit}" for bit in _bits(raw, 0x48, 4) if bit > KEY_INFO_BITS)
    for start, end in RESERVED[layout]:
        if any(raw[start:end]):
            yield f"bytes {start:#x} to {end:#x}"


def _signature(raw: bytes) -> tuple[int, int]:
    """R and S: little-endian in 72 bytes each, of which P-384 fills 48; the rest must be zero."""
    r, s, rest = raw[0x2A0:0x2E8], raw[0x2E8:0x330], raw[0x330:]
    if any(r[48:]) or any(s[48:]) or any(rest):
        _refuse("has bytes after its signature that are not zero")
    return int.from_bytes(r, "little"), int.from_bytes(s, "little")


def _bits(raw: bytes, start: int, size: int = 8) -> tuple[int, ...]:
    """The numbers of the bits that are set."""
    held = _number(raw, start, size)
    return tuple(bit for bit in range(8 * size) if held >> bit & 1)


def _number(raw: bytes, start: int, size: int) -> int:
    return int.from_bytes(raw[start : start + size], "little")


def _refuse(what: str) -> NoReturn:
    raise AttestationError(
        f"The SEV-SNP report {what}. It is damaged or of a firmware that this version of Cordon does not "
        "know: ask the operator of the aggregator."
    )
