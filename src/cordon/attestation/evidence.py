"""What a confidential VM shows to prove itself, and its JSON form, which comes from strangers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from cordon.errors import AttestationError

KINDS = ("sev-snp", "tdx", "sgx")
FORMAT = 1
# The real ones are about 8 kB (SEV-SNP) and 30 kB (Intel, with collateral).
JSON_BYTES = 256 * 1024
REPORT_BYTES = 16 * 1024
CERTIFICATE_BYTES = 8 * 1024
COLLATERAL_BYTES = 128 * 1024
CERTIFICATES = 3
KEYS = {"cordon_evidence", "kind", "report", "certificates", "collateral"}


@dataclass(frozen=True)
class Evidence:
    """A report or quote and what is needed to verify it offline.

    ``report`` is the SEV-SNP report (1,184 bytes) or the Intel quote. ``certificates`` are, in DER, VCEK,
    ASK and ARK, or VLEK, ASVK and ARK; none for Intel. ``collateral`` is Intel's collateral as JSON text
    (`QuoteCollateralV3`); empty for SEV-SNP. Raises AttestationError when it is not of this form.
    """

    kind: str
    report: bytes
    certificates: tuple[bytes, ...] = ()
    collateral: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            _malformed(f"its kind is none of {', '.join(KINDS)}")
        _bounded("report", len(self.report), REPORT_BYTES)
        if self.kind == "sev-snp":
            if len(self.certificates) != CERTIFICATES or self.collateral:
                _malformed("an SEV-SNP report comes with three certificates (VCEK or VLEK, ASK, ARK) alone")
            for certificate in self.certificates:
                _bounded("certificate", len(certificate), CERTIFICATE_BYTES)
        else:
            if self.certificates:
                _malformed("an Intel quote carries its certificates itself")
            _bounded("collateral", len(self.collateral), COLLATERAL_BYTES)

    def to_json(self) -> str:
        """One JSON object, of at most ``JSON_BYTES``; bytes are base64."""
        return json.dumps(
            {
                "cordon_evidence": FORMAT,
                "kind": self.kind,
                "report": base64.b64encode(self.report).decode(),
                "certificates": [base64.b64encode(item).decode() for item in self.certificates],
                "collateral": self.collateral,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Evidence:
        """Read what `to_json` wrote; AttestationError on anything else, however hostile."""
        _bounded("JSON", len(text), JSON_BYTES)
        try:
            held: Any = json.loads(text, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise AttestationError(f"The evidence is not JSON: {str(error)[:200]}. {REMEDY}") from None
        if not isinstance(held, dict) or set(held) != KEYS:
            _malformed(f"it is not one object with the keys {', '.join(sorted(KEYS))}")
        if type(held["cordon_evidence"]) is not int or held["cordon_evidence"] != FORMAT:
            _malformed(f"its format is not {FORMAT}: the aggregator runs another version of Cordon")
        if not isinstance(held["kind"], str) or not isinstance(held["collateral"], str):
            _malformed("kind and collateral are not texts")
        if not isinstance(held["certificates"], list):
            _malformed("its certificates are not a list")
        certificates = tuple(_decoded(item) for item in held["certificates"][: CERTIFICATES + 1])
        return cls(held["kind"], _decoded(held["report"]), certificates, held["collateral"])


REMEDY = "Nothing was sent; ask the operator of the aggregator what answers at this address."


def _malformed(what: str) -> NoReturn:
    raise AttestationError(f"The evidence is malformed: {what}. {REMEDY}")


def _bounded(what: str, length: int, limit: int) -> None:
    if not 0 < length <= limit:
        _malformed(f"its {what} has {length} bytes, of which 1 to {limit} are allowed")


def _decoded(value: object) -> bytes:
    if not isinstance(value, str):
        _malformed("bytes are not base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        _malformed("bytes are not base64 text")


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)
