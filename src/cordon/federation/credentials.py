"""Keys and certificates of a consortium: one authority, one server, one identity a site."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from cordon.errors import UserError
from cordon.federation.plan import Site, fingerprint, write_enrolment

CERTIFICATE_DAYS = 825


def enrol(sites: Sequence[Site], host: str | None, *, state: Path, outdir: Path) -> None:
    """Make every key of a consortium on this machine: for simulated consortia, and for tests.

    In production each site makes its own key, and only the public half is enrolled. A site's key is
    its identity, on which its spending is kept: one that ``state`` holds from an earlier run is kept.

    Writes ``aggregator/`` (ca.crt, server.crt, server.key, enrolment.json) and, for each site,
    ``sites/NAME/`` (site.key, ca.crt) below ``outdir``. Private keys are readable by their owner alone.
    Without a ``host`` there is no certificate: the aggregator's gate makes its own, and attests it.
    """
    aggregator = outdir / "aggregator"
    aggregator.mkdir(parents=True, exist_ok=True)
    authority_pem = write_server(host, aggregator) if host is not None else None
    enrolled = []
    for site in sites:
        folder = outdir / "sites" / site.name
        folder.mkdir(parents=True, exist_ok=True)
        key = _site_key(state / f"{site.name}.key")
        write_private(folder / "site.key", _pem(key, PrivateFormat.OpenSSH))
        if authority_pem is not None:
            (folder / "ca.crt").write_bytes(authority_pem)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        enrolled.append(replace(site, public_key=public.decode()))
    write_enrolment(enrolled, aggregator / "enrolment.json")


def public_pem(path: Path) -> str:
    """The public key in a file (PEM, or OpenSSH's one line) as PEM; UserError where it is no P-384 key."""
    return checked_public_pem(path.read_bytes(), path)


def checked_public_pem(content: bytes, path: Path) -> str:
    """A public key (PEM or OpenSSH) as PEM; UserError, which names ``path``, where it is no P-384 key."""
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_public_key(content)
        else:
            key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path}: not a public key ({error}). Give the site's .pub file; a private key never leaves the "
            "site."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise UserError(
            f"{path}: not an ECDSA key on P-384. Give one that `ssh-keygen -t ecdsa -b 384` made."
        )
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    """A certificate (PEM) for the host names and addresses ``names``, and its new P-384 key (PEM)."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("Cordon aggregator")
    builder = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_alternatives(names), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM)
    return certificate, _pem(key, PrivateFormat.PKCS8)


def write_private(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, all of it or nothing, for its owner's eyes, whatever was there before."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(content)
        made.replace(path)
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    finally:
        made.unlink(missing_ok=True)


def write_server(host: str, folder: Path) -> bytes:
    """Make an authority and the key and certificate of a server of that name or address: ca.crt, server.crt
    and server.key in ``folder``. Returns the authority's certificate (PEM); its key is not kept.
    """
    authority_key, authority = _authority()
    server_key, server = _server(authority_key, authority, host)
    authority_pem = authority.public_bytes(Encoding.PEM)
    (folder / "ca.crt").write_bytes(authority_pem)
    (folder / "server.crt").write_bytes(server.public_bytes(Encoding.PEM) + authority_pem)
    write_private(folder / "server.key", _pem(server_key, PrivateFormat.PKCS8))
    return authority_pem


def private_identity(path: Path) -> str:
    """The `plan.identity` of a site's private key (OpenSSH); UserError where it is no P-384 key."""
    public = read_private(path).public_key()
    return fingerprint(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def write_new_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key (OpenSSH) for its owner's eyes, and its public half as PATH.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, _pem(key, PrivateFormat.OpenSSH))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")


def read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key (OpenSSH) in a file; UserError where it is no P-384 key, or wants a password."""
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path}: not a private key that opens without a password ({error}). "
            "Give one that `ssh-keygen -t ecdsa -b 384` made."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise UserError(
            f"{path}: not an ECDSA key on P-384. Give one that `ssh-keygen -t ecdsa -b 384` made."
        )
    return key


def _site_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key at ``path``, or a new one there. Of two runs that make it at once, both get the first one's."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        write_private(made, _pem(ec.generate_private_key(ec.SECP384R1()), PrivateFormat.OpenSSH))
        with suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
    key = load_ssh_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("Cordon consortium")
    builder = _builder(name, name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return key, builder.sign(key, hashes.SHA384())


def _server(
    authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, host: str
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    builder = _builder(_name(host), authority.subject, key.public_key()).add_extension(
        _alternatives([host]), critical=False
    )
    return key, builder.sign(authority_key, hashes.SHA384())


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name.strip("[]"))))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(alternatives)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())
