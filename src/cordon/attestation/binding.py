"""What ties a report to a TLS key and to one question of one site."""

from __future__ import annotations

import hashlib

CONTEXT = b"cordon attestation v1"
NONCE_BYTES = 32


def report_data(spki: bytes, nonce: bytes) -> bytes:
    """The 64 bytes that a report carries for ``spki`` (DER SubjectPublicKeyInfo) and ``nonce``.

    SHA-512 over the context, the key and the nonce, each after its length (8 bytes, big-endian), so
    that no two different triples give the same bytes.
    """
    digest = hashlib.sha512()
    for part in (CONTEXT, spki, nonce):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
