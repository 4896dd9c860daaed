"""Intel SGX and TDX: `dcap-qvl` verifies the quote, this module its form and what the policy pins.

`dcap-qvl` skips what it does not need: what follows the quote, roots (it has its own), the chain of the
revocation list and white space around certificates. Here each of those bytes has one accepted value.
Source: Intel, Quote Generation, Verification and Attestation with Intel SGX/TDX DCAP, "Quote Format".
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime
from typing import Any, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import IntelPolicy
from cordon.attestation.verified import Verified
from cordon.errors import AttestationError

# SHA-256 of the DER certificate "Intel SGX Root CA", which is valid to the end of 2049.
INTEL_ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
KINDS = {0x00: "sgx", 0x81: "tdx"}
HEADER, SGX_BODY, TDX_BODY = 48, 384, 584
SIGNATURE_AND_KEY, QE_REPORT_AND_SIGNATURE = 128, 448
NESTED_CERTIFICATION, PCK_CHAIN = 6, 5
GENUINE = "Do not connect: the quote is forged, damaged, or its collateral is of another time or platform."
OTHER_GUEST = "Compare with the operator what runs there and what the policy allows; change neither in haste."
PLATFORM = (
    "The quote is genuine. Choose another platform, or let the policy allow this one if the consortium does."
)
SGX_DEBUG = 0x02
REVOKED = "Revoked"
# What a policy calls a platform's properties, and `dcap-qvl`.
FLAGS = {"dynamic_platform": "dynamic_platform", "cached_keys": "cached_keys", "smt": "smt_enabled"}
COLLATERAL = {
    "pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info",
    "tcb_info_signature", "qe_identity_issuer_chain", "qe_identity", "qe_identity_signature",
}  # fmt: skip


def authenticate(evidence: Evidence, now: datetime) -> Verified:
    """Who made the quote: chain, collateral and signatures at ``now``; nothing about what runs there.

    What the platform is like (TCB status, dynamic, cached keys, SMT) and whether its code may be debugged is
    told and not judged, but for a revoked TCB, whose keys may be anybody's. Raises AttestationError.
    """
    import dcap_qvl  # type: ignore[import-untyped]

    chain = _chain(evidence)
    try:
        held = _collateral(evidence.collateral, chain)
        seconds = int(now.timestamp())
        collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(held))
        rules = dcap_qvl.QuotePolicy.claims_only(seconds)
        claims = dcap_qvl.QuoteVerifier().verify_with_policy(evidence.report, collateral, seconds, rules)
        found = json.loads(claims.to_json())
        ends = min(found["earliest_expiration_date"], found["qe_iden_earliest_expiration_date"])
        facts = _facts(evidence.kind, found)
    except (KeyboardInterrupt, SystemExit, AttestationError):
        raise
    except BaseException as error:  # a panic of the Rust library is no Exception
        _refuse(str(error).split("\n")[0][:200], GENUINE)
    if ends < seconds:
        _refuse(f"its collateral was good until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}", GENUINE)
    if facts.tcb_status == REVOKED:
        _refuse("Intel has revoked its platform's TCB, so its keys may be anybody's", GENUINE)
    return facts


def enforce(found: Verified, policy: IntelPolicy) -> None:
    """Whether ``policy`` accepts the platform and code of this genuine quote; AttestationError if not."""
    if found.debug:
        _refuse("its code may be debugged, so its host can read its memory", OTHER_GUEST)
    if found.tcb_status not in policy.tcb_statuses:
        _refuse(f"its TCB status {found.tcb_status} is not one that the policy allows", PLATFORM)
    for name in found.platform_info:
        if not getattr(policy, name):
            _refuse(f"its platform has {name} = true, and the policy does not allow it", PLATFORM)
    held = found.registers
    if found.kind == "tdx":
        _pinned("MRTD", found.measurement, policy.mrtd)
        for name, allowed in policy.rtmrs.items():
            _pinned(name.upper(), held[name], allowed)
        return
    if not (policy.mrenclave or policy.mrsigner):
        _refuse("the policy pins neither MRENCLAVE nor MRSIGNER", OTHER_GUEST)
    if policy.mrenclave:
        _pinned("MRENCLAVE", found.measurement, policy.mrenclave)
    if policy.mrsigner:
        _pinned("MRSIGNER", held["mrsigner"], policy.mrsigner)
    if policy.isv_prod_id is not None and int(held["isv_prod_id"]) != policy.isv_prod_id:
        _refuse(f"its product id is {held['isv_prod_id']}, not {policy.isv_prod_id}", OTHER_GUEST)
    if found.guest_svn < policy.minimum_isv_svn:
        _refuse(f"its ISV SVN is {found.guest_svn}, under {policy.minimum_isv_svn}", OTHER_GUEST)


def kind_of(quote: bytes) -> str:
    """``sgx`` or ``tdx``, as the quote's header says; AttestationError if neither."""
    kind = KINDS.get(int.from_bytes(quote[4:8], "little")) if len(quote) > HEADER else None
    if kind is None:
        _refuse("it is neither of SGX nor of TDX", GENUINE)
    return kind


def _pinned(name: str, held: str, allowed: frozenset[bytes]) -> None:
    if bytes.fromhex(held) not in allowed:
        _refuse(f"its {name} {held} is not one that the policy allows", OTHER_GUEST)


def _facts(kind: str, claims: dict[str, Any]) -> Verified:
    ((form, body),) = claims["report"].items()
    body = body.get("base", body)
    common: dict[str, Any] = {
        "kind": kind, "product": kind, "version": claims["header"]["version"], "root": "intel",
        "test_only": False, "chip_id": bytes(claims["platform"]["pck"]["ppid"]).hex(),
        "tcb_status": claims["tcb"]["status"], "advisories": tuple(claims["tcb"]["advisory_ids"]),
        "report_data": body["report_data"], "signer": "PCK",
        "platform_info": tuple(x for x, said in FLAGS.items() if claims["platform"]["pck"][said] == "True"),
    }  # fmt: skip
    if (form == "SgxEnclave") != (kind == "sgx"):
        _refuse(f"it is a quote of {form}, not of {kind}", GENUINE)
    if form == "SgxEnclave":
        registers = {"mrsigner": body["mr_signer"], "isv_prod_id": str(body["isv_prod_id"])}
        return Verified(
            measurement=body["mr_enclave"], guest_svn=body["isv_svn"], registers=registers,
            debug=bool(bytes.fromhex(body["attributes"])[0] & SGX_DEBUG), **common,
        )  # fmt: skip
    registers = {f"rtmr{place}": body[f"rt_mr{place}"] for place in range(4)}
    # The first byte is TUD, "TD under debug": each of its bits lets the host look in or profile.
    debug = bytes.fromhex(body["td_attributes"])[0] != 0
    return Verified(measurement=body["mr_td"], registers=registers, debug=debug, **common)


def _chain(evidence: Evidence) -> list[x509.Certificate]:
    """The quote's PCK, its authority and Intel's root; every byte of the quote has its place."""
    quote = evidence.report
    try:
        version, _, tee = struct.unpack_from("<HHI", quote, 0)
        if version not in (3, 4, 5) or KINDS.get(tee) != evidence.kind:
            _refuse(f"it is no {evidence.kind} quote of version 3, 4 or 5", GENUINE)
        place = HEADER + (SGX_BODY if tee == 0 else TDX_BODY)
        if version == 5:
            place = HEADER + 6 + struct.unpack_from("<I", quote, HEADER + 2)[0]
        (size,) = struct.unpack_from("<I", quote, place)
        end, place = place + 4 + size, place + 4 + SIGNATURE_AND_KEY
        if version > 3:
            place = _certification(quote, place, NESTED_CERTIFICATION, end)
        place += QE_REPORT_AND_SIGNATURE
        place += 2 + struct.unpack_from("<H", quote, place)[0]
        place = _certification(quote, place, PCK_CHAIN, end)
        if any(quote[end:]):
            raise ValueError("something follows it")
        return _canonical(quote[place:end].removesuffix(b"\0"))
    except (struct.error, ValueError, IndexError) as error:
        _refuse(f"it is malformed: {error}", GENUINE)


def _collateral(text: str, chain: list[x509.Certificate]) -> dict[str, str]:
    """The collateral, of which every field is there and every chain ends in Intel's root."""
    held = json.loads(text)
    if (
        not isinstance(held, dict)
        or set(held) != COLLATERAL
        or not all(isinstance(value, str) for value in held.values())
    ):
        raise ValueError(f"its collateral must have the texts {', '.join(sorted(COLLATERAL))}")
    issuers = {name: _canonical(held[name].encode()) for name in sorted(COLLATERAL) if "chain" in name}
    if issuers["pck_crl_issuer_chain"] != chain[1:]:
        raise ValueError("the revocation list of its collateral is of another authority")
    return held


def _canonical(pem: bytes) -> list[x509.Certificate]:
    """Certificates up to Intel's root; ValueError unless ``pem`` is just what they encode to."""
    try:
        chain = x509.load_pem_x509_certificates(pem)
        encoded = b"".join(item.public_bytes(Encoding.PEM) for item in chain)
    except Exception as error:  # what `cryptography` raises on hostile bytes has no common base
        raise ValueError(f"a certificate is malformed ({str(error)[:100]})") from None
    if pem not in (encoded, encoded[:-1]):  # with or without the line feed at the end
        raise ValueError("certificates are not in their one canonical form")
    if hashlib.sha256(chain[-1].public_bytes(Encoding.DER)).hexdigest() != INTEL_ROOT:
        raise ValueError("the root in its certificates is not Intel's")
    return chain


def _certification(quote: bytes, place: int, kind: int, end: int) -> int:
    """Where the certification data start, which must be of ``kind`` and reach to ``end``."""
    held, size = struct.unpack_from("<HI", quote, place)
    if held != kind or place + 6 + size != end or end > len(quote):
        raise ValueError("lengths do not fit")
    return place + 6


def _refuse(what: str, remedy: str) -> NoReturn:
    raise AttestationError(f"The Intel quote is refused: {what}. {remedy}")
