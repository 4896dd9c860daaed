"""AMD's certificates: pinned root, signing key, chip's or provider's key, and what is written into it.

Source: AMD, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification (57230).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cordon.attestation.snp_report import HARDWARE_ID_BYTES, PRODUCTS, TCB_LAYOUT, TCB_PARTS
from cordon.errors import AttestationError

T = TypeVar("T")
TEST_ONLY = "TEST ONLY"
OID = "1.3.6.1.4.1.3704.1"
PRODUCT_NAME = f"{OID}.2"
TCB_OIDS = {
    "bootloader": f"{OID}.3.1", "tee": f"{OID}.3.2", "snp": f"{OID}.3.3", "microcode": f"{OID}.3.8",
    "fmc": f"{OID}.3.9",
}  # fmt: skip
HARDWARE_ID = f"{OID}.4"
PROVIDER = f"{OID}.5"
# Stepping aside, what the product name extension says; Bergamo and Siena have Genoa's keys.
FAMILIES = {"milan": {"Milan"}, "genoa": {"Genoa", "Bergamo", "Siena"}, "turin": {"Turin"}}
SALT_BYTES = 48


@dataclass(frozen=True)
class Endorsement:
    """What a verified chain says: who may sign, on which chip, at which TCB.

    ``hardware_id`` is the chip's and ``provider`` empty for a VCEK; the other way round for a VLEK.
    """

    product: str
    signer: str
    key: ec.EllipticCurvePublicKey
    tcb: Mapping[str, int]
    hardware_id: bytes
    provider: str
    root: str
    test_only: bool


def load(der: bytes) -> x509.Certificate:
    """Parse one DER certificate; AttestationError if it is none."""
    return _parsed(x509.load_der_x509_certificate, der)


def load_pem(content: bytes) -> list[x509.Certificate]:
    """The certificates in PEM; AttestationError if there are none."""
    return _parsed(x509.load_pem_x509_certificates, content)


def _parsed(parse: Callable[[bytes], T], content: bytes) -> T:
    """What ``parse`` makes of ``content``.

    AMD gives VCEKs the serial number 0, against RFC 5280; `cryptography` warns of just that, and says
    that it will refuse them some day. That one warning is silenced here, where such a certificate is
    expected; nothing here reads a VCEK's serial number.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")
        try:
            return parse(content)
        except Exception as error:  # what `cryptography` raises on hostile bytes has no common base
            raise AttestationError(
                f"A certificate is malformed: {str(error)[:200]}. Get the evidence and its certificates anew."
            ) from None


def concatenated(content: bytes) -> list[bytes]:
    """The DER certificates that stand one after another in ``content``; AttestationError if cut short."""
    found = []
    while content:
        # SEQUENCE with its length in two bytes, as of every certificate from 256 bytes to 64 kB.
        size = 4 + int.from_bytes(content[2:4], "big")
        if content[:2] != b"\x30\x82" or len(content) < size:
            raise AttestationError(
                "A certificate is malformed: neither PEM nor DER. Get the evidence and its certificates anew."
            )
        found.append(content[:size])
        content = content[size:]
    return found


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo, 64 hexadecimal digits."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


@cache
def shipped(product: str) -> tuple[x509.Certificate, x509.Certificate]:
    """AMD's own ASK and ARK of ``product``, which come with Cordon."""
    folder = files("cordon.attestation") / "roots"
    ask, ark = (
        x509.load_pem_x509_certificate((folder / f"{product}_{name}.pem").read_bytes())
        for name in ("ask", "ark")
    )
    return ask, ark


@cache
def amd_roots() -> Mapping[str, str]:
    """Fingerprint to name of AMD's roots: ``amd-milan``, ``amd-genoa``, ``amd-turin``."""
    return {fingerprint(shipped(product)[1]): f"amd-{product}" for product in PRODUCTS}


def is_test(certificate: x509.Certificate) -> bool:
    return any(TEST_ONLY in str(attribute.value) for attribute in certificate.subject)


def endorsement(
    certificates: Sequence[bytes],
    roots: Mapping[str, str],
    now: datetime,
    revocations: Iterable[x509.CertificateRevocationList] = (),
) -> Endorsement:
    """Verify VCEK or VLEK, ASK and ARK (DER) up to a root of ``roots``, fingerprint to name.

    Raises AttestationError when a signature, name, date, algorithm or extension is not AMD's, or when
    a list of ``revocations``, if there are any, does not clear the ASK.
    """
    if len(certificates) != 3:
        _refuse(f"the chain has {len(certificates)} certificates instead of VCEK or VLEK, ASK and ARK")
    try:
        leaf, ask, ark = (load(der) for der in certificates)
        return _endorsement(leaf, ask, ark, roots, now, tuple(revocations))
    except AttestationError:
        raise
    except Exception as error:  # as in `load`: extensions, keys and dates are parsed when first read
        _refuse(f"a certificate of the chain is malformed: {str(error)[:200]}")


def _endorsement(
    leaf: x509.Certificate, ask: x509.Certificate, ark: x509.Certificate,
    roots: Mapping[str, str], now: datetime, revocations: Collection[x509.CertificateRevocationList],
) -> Endorsement:  # fmt: skip
    held = fingerprint(ark)
    if held not in roots:
        hint = "; it is for tests only, and no policy of production accepts it" if is_test(ark) else ""
        _refuse(f"its root {_name(ark)} (public key SHA-256 {held}) is not one that the policy pins{hint}")
    product, signer = _product(ark), "VCEK"
    if _name(ask) == f"SEV-VLEK-{product.capitalize()}":
        signer = "VLEK"
    elif _name(ask) != f"SEV-{product.capitalize()}":
        _refuse(f"{_name(ask)!r} is no signing key of {product}")
    if _name(leaf) != f"SEV-{signer}":
        _refuse(f"{_name(leaf)!r} is not SEV-{signer}, which {_name(ask)} signs")
    for what, certificate, issuer in (("ARK", ark, ark), ("ASK", ask, ark), (signer, leaf, ask)):
        _check_signature(what, certificate, issuer)
        _check_dates(what, certificate, now)
    for certificate in (ask, ark):
        _check_authority(certificate)
    if revocations:
        _check_revocations(ask, ark, now, revocations)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        _refuse(f"the {signer}'s key is not of the curve P-384")
    tcb, hardware_id, provider = _extensions(leaf, product, signer)
    return Endorsement(product, signer, key, tcb, hardware_id, provider, roots[held], is_test(ark))


def _check_signature(what: str, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    key, parameters = issuer.public_key(), certificate.signature_algorithm_parameters
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 4096:
        _refuse(f"the key that signs the {what} is not RSA of 4096 bits")
    if (
        not isinstance(parameters, padding.PSS)
        or not isinstance(certificate.signature_hash_algorithm, hashes.SHA384)
        or parameters != padding.PSS(padding.MGF1(hashes.SHA384()), SALT_BYTES)
    ):
        _refuse(f"the {what} is not signed by RSA-PSS with SHA-384 and a salt of {SALT_BYTES} bytes")
    # The count of unused bits of the signature is the one byte that neither signature nor parser binds.
    unused = certificate.public_bytes(Encoding.DER)[-len(certificate.signature) - 1]
    if unused != 0:
        _refuse(f"the signature of the {what} is not in its one canonical form")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        _refuse(f"the {what} is not signed by {_name(issuer)}")


def _check_dates(what: str, certificate: x509.Certificate, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now <= end:
        _refuse(f"the {what} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not on {now:%Y-%m-%d}")


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        _refuse(f"{_name(certificate)} does not say what its key is for")
    if not basic.ca or not usage.key_cert_sign:
        _refuse(f"{_name(certificate)} may not sign certificates")


def _check_revocations(
    ask: x509.Certificate, ark: x509.Certificate, now: datetime,
    revocations: Collection[x509.CertificateRevocationList],
) -> None:  # fmt: skip
    key = ark.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    current = [
        item
        for item in revocations
        if item.issuer == ark.subject
        and item.is_signature_valid(key)
        and item.last_update_utc <= now
        and item.next_update_utc is not None
        and now <= item.next_update_utc
    ]
    if not current:
        _refuse(f"no revocation list of the policy is by {_name(ark)} and current; fetch a new one")
    if any(item.get_revoked_certificate_by_serial_number(ask.serial_number) for item in current):
        _refuse(f"{_name(ask)} has been revoked")


def _extensions(leaf: x509.Certificate, product: str, signer: str) -> tuple[dict[str, int], bytes, str]:
    """TCB, hardware id of a VCEK, provider of a VLEK."""
    held = {
        item.oid.dotted_string: item.value.value
        for item in leaf.extensions
        if isinstance(item.value, x509.UnrecognizedExtension)
    }
    name = _text(held, PRODUCT_NAME).split("-")[0]
    if name not in FAMILIES[product]:
        _refuse(f"the {signer} is for the product {name!r}, its root for {product}")
    parts = [part for part in TCB_PARTS if part in TCB_LAYOUT[product]]
    tcb = {part: _integer(held, TCB_OIDS[part]) for part in parts}
    if signer == "VLEK":
        return tcb, b"", _text(held, PROVIDER)
    hardware_id = held.get(HARDWARE_ID, b"")
    if len(hardware_id) != HARDWARE_ID_BYTES[product]:
        _refuse(f"the VCEK's hardware id has {len(hardware_id)} bytes, not {HARDWARE_ID_BYTES[product]}")
    return tcb, hardware_id, ""


def _integer(held: Mapping[str, bytes], oid: str) -> int:
    """A DER INTEGER from 0 to 255, as AMD writes security versions."""
    der = held.get(oid, b"")
    value = int.from_bytes(der[2:], "big")
    if len(der) < 3 or value > 255 or der != (b"\2\1%c" if value < 128 else b"\2\2\0%c") % value:
        _refuse(f"extension {oid} is no security version from 0 to 255")
    return value


def _text(held: Mapping[str, bytes], oid: str) -> str:
    """A DER IA5String of less than 128 characters."""
    der = held.get(oid, b"")
    if len(der) < 3 or der[0] != 0x16 or der[1] != len(der) - 2 or not der[2:].isascii():
        _refuse(f"extension {oid} is no text")
    return der[2:].decode("ascii")


def _product(ark: x509.Certificate) -> str:
    product = _name(ark).removeprefix("ARK-").lower()
    if product not in PRODUCTS or _name(ark) != f"ARK-{product.capitalize()}":
        _refuse(f"its root {_name(ark)!r} is of no product that is known: {', '.join(PRODUCTS)}")
    return product


def _name(certificate: x509.Certificate) -> str:
    values = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 else ""


def _refuse(what: str) -> NoReturn:
    raise AttestationError(
        f"The certificates of the aggregator's processor are refused: {what}. Ask its operator for the "
        "chain that AMD's key distribution service gives for this chip and TCB."
    )
