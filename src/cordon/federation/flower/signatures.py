"""The enrolled SuperNodes' keys, and who signed a request."""

from __future__ import annotations

import datetime
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cordon.federation.plan import read_enrolment

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


def authentic(headers: Mapping[str, str], enrolled: Enrolled) -> bool:
    """Whether an enrolled key signed the request's time just now: what the SuperLink checks, but earlier."""
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
        return verify_signature(key, time.encode("ascii"), signature)
    except (KeyError, ValueError, TypeError):
        return False
