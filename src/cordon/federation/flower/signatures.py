"""The enrolled SuperNodes' keys, and who signed a request, for whom.

Flower signs the time alone, which is good at every aggregator that knows the key. A SuperNode of Cordon signs
the time together with the TLS key of the gate that it speaks to, and the path that it asks for.
"""

from __future__ import annotations

import datetime
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cordon.federation.plan import read_enrolment

# The header that ties a request to the gate it was meant for.
BOUND = "cordon-signature"
CONTEXT = b"cordon request v1"

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    # By their PEM, as a SuperNode sends it.
    Enrolled = Mapping[bytes, ec.EllipticCurvePublicKey]


def enrolled_keys(path: Path) -> Enrolled:
    """The public keys in an enrolment file, by their PEM."""
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key

    pems = [site.public_key.encode() for site in read_enrolment(path)]
    return {pem: bytes_to_public_key(pem) for pem in pems}


def clock_tolerance() -> tuple[float, float]:
    """Seconds by which a signed time may be ahead of the aggregator's clock, and behind it."""
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    return SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE


def bound_to(spki: bytes, path: str, time: str) -> bytes:
    """What a SuperNode signs at ``time`` to ask the gate whose TLS key is ``spki`` (DER) for ``path``."""
    parts = (CONTEXT, spki, path.encode(), time.encode())
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def authentic(headers: Mapping[str, str], enrolled: Enrolled, *, spki: bytes = b"", path: str = "") -> bool:
    """Whether an enrolled key signed the request's time just now: what the SuperLink checks, but earlier.

    With ``spki``, the key of the TLS server that was asked, also whether it was signed for that one and
    ``path``: what another aggregator was sent is no request to this one.
    """
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import verify_signature

    try:
        key = enrolled[b64decode(headers["flwr-public-key"], validate=True)]
        signature = b64decode(headers["flwr-signature"], validate=True)
        time = headers["flwr-timestamp"]
        age = (now() - datetime.datetime.fromisoformat(time)).total_seconds()
        ahead, behind = clock_tolerance()
        if not -ahead < age < behind + ahead:
            return False
        if spki:
            signed_for = b64decode(headers[BOUND], validate=True)
            if not verify_signature(key, bound_to(spki, path, time), signed_for):
                return False
        return verify_signature(key, time.encode("ascii"), signature)
    except (KeyError, ValueError, TypeError):
        return False
