"""SEV-SNP: is the report genuine, and does the policy accept it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cordon.attestation.certificates import Endorsement, endorsement
from cordon.attestation.evidence import Evidence
from cordon.attestation.policy import SnpPolicy
from cordon.attestation.snp_report import SIGNED_BYTES, Report, documented, tcb_parts, tcb_unknown
from cordon.attestation.verified import Verified
from cordon.errors import AttestationError

GENUINE = "Do not connect: the evidence is forged, damaged, or of another machine; tell the operator."
OTHER_GUEST = "Compare with the operator what runs there and what the policy allows; change neither in haste."
ALLOW_PLATFORM = (
    "The report is genuine. Read in AMD's firmware ABI specification (56860) what that means, and list it in "
    "sev_snp.platform_info if the consortium accepts it."
)
ALLOW_UNKNOWN = (
    "The report is genuine; its firmware is newer. Use a newer Cordon, or list it in sev_snp.unknown if the "
    "consortium accepts it."
)
OLD = "The operator must update the host's firmware, or move the aggregator to another host."


def authenticate(
    evidence: Evidence,
    roots: Mapping[str, str],
    now: datetime,
    revocations: Iterable[x509.CertificateRevocationList] = (),
) -> tuple[Report, Verified]:
    """Who made the report: chain, key, chip, TCB and signature; nothing about what the guest is.

    ``roots`` maps SHA-256 of public keys to names. Raises AttestationError.
    """
    report = Report.parse(evidence.report)
    chain = endorsement(evidence.certificates, roots, now, revocations)
    product = chain.product
    if report.mask_chip_key:
        _refuse("the host masks the chip's key (MASK_CHIP_KEY), so the report is not signed by it", OLD)
    if report.signer != chain.signer:
        _refuse(f"the report names a {report.signer} as its key, but comes with a {chain.signer}", GENUINE)
    if report.product not in (None, product):
        _refuse(f"the report is of a {report.product} processor, its key of a {product}", GENUINE)
    reported = tcb_parts(report.reported_tcb, product)
    if reported != dict(chain.tcb):
        _refuse(f"the report's TCB {reported} is not its key's {dict(chain.tcb)}", GENUINE)
    if chain.signer == "VCEK" and report.chip_id != chain.hardware_id.ljust(64, b"\0"):
        _refuse("the report's chip id is not the one in the VCEK, or is masked by the host", GENUINE)
    _check_signature(report, chain, evidence.report[:SIGNED_BYTES])
    return report, Verified(
        kind=evidence.kind, product=product, version=report.version,
        measurement=report.measurement.hex(), tcb=reported, chip_id=report.chip_id.hex(),
        signer=chain.signer, provider=chain.provider, root=chain.root, test_only=chain.test_only,
        vmpl=report.vmpl, debug=report.debug, migration_agent=report.migration_agent,
        guest_svn=report.guest_svn, report_data=report.report_data.hex(),
        id_key_digest=report.id_key_digest.hex(), author_key_digest=report.author_key_digest.hex(),
        family_id=report.family_id.hex(), image_id=report.image_id.hex(),
        host_data=report.host_data.hex(), platform_info=report.platform_info,
        launch_mitigations=report.launch_mitigations, current_mitigations=report.current_mitigations,
        unknown=(*report.unknown, *_unknown_tcbs(report, product)),
    )  # fmt: skip


def enforce(report: Report, found: Verified, policy: SnpPolicy) -> None:
    """Whether ``policy`` accepts this genuine report; AttestationError with the first reason if not."""
    if report.debug and not policy.debug:
        _refuse("the guest may be debugged, so its host can read its memory", OTHER_GUEST)
    if report.migration_agent and not policy.migration_agent:
        _refuse("a migration agent may move the guest's memory elsewhere", OTHER_GUEST)
    if report.vmpl > policy.max_vmpl:
        _refuse(f"it was made at VMPL {report.vmpl}, over {policy.max_vmpl}", OTHER_GUEST)
    if report.measurement not in policy.measurements:
        _refuse(f"the measurement {found.measurement} is not one that the policy allows", OTHER_GUEST)
    if report.guest_svn < policy.minimum_guest_svn:
        _refuse(f"its guest SVN is {report.guest_svn}, under {policy.minimum_guest_svn}", OTHER_GUEST)
    for name in ("family_id", "image_id", "host_data"):
        wanted, held = getattr(policy, name), getattr(report, name)
        if wanted is not None and wanted != held:
            _refuse(f"its {name} is {held.hex()}, not {wanted.hex()}", OTHER_GUEST)
    for name in ("id_key_digest", "author_key_digest"):
        allowed, held = getattr(policy, f"{name}s"), getattr(report, name)
        if allowed and held not in allowed:
            _refuse(f"its {name} {held.hex()} is not one that the policy allows", OTHER_GUEST)
    if policy.author_key_digests and not report.author_key:
        _refuse("no author key signed its ID key", OTHER_GUEST)
    if policy.providers and found.provider and found.provider not in policy.providers:
        _refuse(f"its key was leased to the provider {found.provider!r}", OTHER_GUEST)
    _check_platform(report, found, policy)
    _check_tcb(report, found.product, policy)


def _check_platform(report: Report, found: Verified, policy: SnpPolicy) -> None:
    """What the host's hardware and firmware have switched on, and what this version does not know of them."""
    allowed = documented(report.version) if policy.platform_info is None else policy.platform_info
    for name in report.platform_info:
        if name not in allowed:
            _refuse(f"its platform info has {name!r}, which the policy does not allow", ALLOW_PLATFORM)
    if lacking := sorted(policy.platform_info_required - set(report.platform_info)):
        _refuse(f"its platform info lacks {', '.join(lacking)}, which the policy requires", OLD)
    for when in ("launch", "current"):
        held = getattr(report, f"{when}_mitigations")
        lacked = sorted(policy.mitigations - set(held or ()))
        if lacked:
            told = "lacks" if held is not None else f"(version {report.version}) does not tell"
            _refuse(f"its {when} mitigation vector {told} {', '.join(map(str, lacked))}", OLD)
    for what in found.unknown:
        if what not in policy.unknown:
            _refuse(f"it has {what}, of which this version of Cordon knows nothing", ALLOW_UNKNOWN)


def _unknown_tcbs(report: Report, product: str) -> Iterator[str]:
    for when in ("current", "reported", "committed", "launch"):
        if tcb_unknown(getattr(report, f"{when}_tcb"), product):
            yield f"{when}_tcb"


def _check_tcb(report: Report, product: str, policy: SnpPolicy) -> None:
    """The minimum binds the TCB of now and that of launch, under which the guest's memory was filled."""
    minimum = policy.minimum_tcb.get(product)
    if minimum is None:
        _refuse(f"the policy gives no minimum TCB for {product}", f"Add [sev_snp.minimum_tcb.{product}].")
    for when, raw in (("reported", report.reported_tcb), ("launch", report.launch_tcb)):
        held = tcb_parts(raw, product)
        old = [f"{part} {held[part]} < {least}" for part, least in minimum.items() if held[part] < least]
        if old:
            _refuse(f"its {when} TCB is under the policy's minimum: {', '.join(old)}", OLD)


def _check_signature(report: Report, chain: Endorsement, signed: bytes) -> None:
    try:
        signature = encode_dss_signature(report.r, report.s)
        chain.key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        _refuse(f"the report is not signed by the {chain.signer}", GENUINE)


def _refuse(what: str, remedy: str) -> NoReturn:
    raise AttestationError(f"The SEV-SNP report is refused: {what}. {remedy}")
