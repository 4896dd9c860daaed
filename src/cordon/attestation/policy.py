"""`policy.toml`: which confidential VMs a site trusts with its updates."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cordon.attestation.certificates import amd_roots, fingerprint, is_test
from cordon.attestation.snp_report import PLATFORM_INFO, PRODUCTS, TCB_LAYOUT
from cordon.errors import AttestationError, UserError

T = TypeVar("T")
POLICY_BYTES = 256 * 1024
TCB_STATUSES = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
    "OutOfDate", "OutOfDateConfigurationNeeded",
)  # fmt: skip
RTMRS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True)
class SnpPolicy:
    """What an SEV-SNP report must say; ``roots`` maps SHA-256 of the ARK's public key to a name.

    ``platform_info`` names the bits that may be set, None those that AMD documents for the report's version;
    ``mitigations`` the numbers that both mitigation vectors must have; ``unknown`` what may be there although
    this version of Cordon cannot judge it, in the words of a refusal.
    """

    roots: Mapping[str, str]
    measurements: frozenset[bytes]
    minimum_tcb: Mapping[str, Mapping[str, int]]
    debug: bool = False
    migration_agent: bool = False
    max_vmpl: int = 0
    minimum_guest_svn: int = 0
    id_key_digests: frozenset[bytes] = frozenset()
    author_key_digests: frozenset[bytes] = frozenset()
    family_id: bytes | None = None
    image_id: bytes | None = None
    host_data: bytes | None = None
    providers: frozenset[str] = frozenset()
    platform_info: frozenset[str] | None = None
    platform_info_required: frozenset[str] = frozenset()
    mitigations: frozenset[int] = frozenset()
    unknown: frozenset[str] = frozenset()
    revocations: tuple[x509.CertificateRevocationList, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class IntelPolicy:
    """What an SGX or TDX quote must say; a quote of a kind with nothing pinned is refused."""

    mrenclave: frozenset[bytes] = frozenset()
    mrsigner: frozenset[bytes] = frozenset()
    minimum_isv_svn: int = 0
    isv_prod_id: int | None = None
    mrtd: frozenset[bytes] = frozenset()
    rtmrs: Mapping[str, frozenset[bytes]] = field(default_factory=dict)
    tcb_statuses: tuple[str, ...] = ("UpToDate",)
    dynamic_platform: bool = False
    cached_keys: bool = False
    smt: bool = False


@dataclass(frozen=True)
class Policy:
    """A whole policy; with ``test_only`` it accepts an emulator's root, and no other."""

    sev_snp: SnpPolicy | None = None
    intel: IntelPolicy | None = None
    test_only: bool = False
    not_before: datetime | None = None
    not_after: datetime | None = None

    @classmethod
    def read(cls, path: Path | str) -> Policy:
        """Read ``policy.toml``; UserError names the key that is unknown, missing or of a wrong form."""
        path = Path(path)
        try:
            with path.open("rb") as handle:
                content = handle.read(POLICY_BYTES + 1)
            if len(content) > POLICY_BYTES:
                raise UserError(
                    f"{path}: is larger than {POLICY_BYTES} bytes, so it is no policy. Give a policy.toml."
                )
            table = _Table(tomllib.loads(content.decode()), path)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read as TOML: {error}. Mend the policy.") from None
        policy = cls(
            test_only=table.take("test_only", _boolean, False),
            not_before=table.take("not_before", _time, None),
            not_after=table.take("not_after", _time, None),
            sev_snp=table.take("sev_snp", lambda held: _snp(_Table(held, path, "sev_snp.")), None),
            intel=table.take("intel", lambda held: _intel(_Table(held, path, "intel.")), None),
        )
        table.ends()
        if policy.sev_snp is None and policy.intel is None:
            raise UserError(f"{path}: pins nothing. Add [sev_snp] or [intel].")
        return policy._consistent(path)

    def _consistent(self, path: Path) -> Policy:
        if self.test_only and self.intel is not None:
            raise UserError(f"{path}: test_only goes with an emulator's root, not with [intel]. Drop one.")
        for pinned, name in (self.sev_snp.roots if self.sev_snp else {}).items():
            if self.test_only and pinned in amd_roots():
                raise UserError(f"{path}: test_only together with AMD's root {name}. Drop one of the two.")
        return self

    def check_dates(self, now: datetime) -> None:
        """AttestationError where the policy itself is not valid at ``now``."""
        if (self.not_before and now < self.not_before) or (self.not_after and now > self.not_after):
            raise AttestationError(
                f"The policy is valid from {self.not_before or 'ever'} to {self.not_after or 'ever'}, not on "
                f"{now:%Y-%m-%d}. Ask the consortium for the current policy, and check this machine's clock."
            )


class _Table:
    """A TOML table of which every key must be known; errors name file and key."""

    def __init__(self, held: object, path: Path, prefix: str = "") -> None:
        if not isinstance(held, dict):
            raise ValueError("must be a table")
        self.held: dict[str, Any] = dict(held)
        self.path, self.prefix = path, prefix

    def take(self, name: str, read: Callable[[Any], T], default: T) -> T:
        if name not in self.held:
            return default
        try:
            return read(self.held.pop(name))
        except (ValueError, TypeError, OSError, UnsupportedAlgorithm) as error:
            raise UserError(f"{self.path}: {self.prefix}{name} {error}. Mend the policy.") from None

    def ends(self) -> None:
        if self.held:
            names = ", ".join(f"{self.prefix}{name}" for name in self.held)
            raise UserError(f"{self.path}: unknown: {names}. Remove it; nothing is ignored in a policy.")


def _snp(table: _Table) -> SnpPolicy:
    folder = table.path.parent
    policy = SnpPolicy(
        roots=table.take("roots", lambda held: dict(_root(item, folder) for item in _list(held, str)), {}),
        measurements=table.take("measurements", _digests(48), frozenset()),
        minimum_tcb=table.take("minimum_tcb", _minimum_tcb, {}),
        debug=table.take("debug", _boolean, False),
        migration_agent=table.take("migration_agent", _boolean, False),
        max_vmpl=table.take("max_vmpl", _whole(3), 0),
        minimum_guest_svn=table.take("minimum_guest_svn", _whole(2**32 - 1), 0),
        id_key_digests=table.take("id_key_digests", _digests(48), frozenset()),
        author_key_digests=table.take("author_key_digests", _digests(48), frozenset()),
        family_id=table.take("family_id", _one_digest(16), None),
        image_id=table.take("image_id", _one_digest(16), None),
        host_data=table.take("host_data", _one_digest(32), None),
        providers=table.take("providers", _texts, frozenset()),
        platform_info=table.take("platform_info", _platform, None),
        platform_info_required=table.take("platform_info_required", _platform, frozenset()),
        mitigations=table.take("mitigations", _mitigations, frozenset()),
        unknown=table.take("unknown", _texts, frozenset()),
        revocations=table.take("crls", lambda held: tuple(_crl(folder / x) for x in _list(held, str)), ()),
    )
    table.ends()
    for name in ("roots", "measurements", "minimum_tcb"):
        if not getattr(policy, name):
            raise UserError(f"{table.path}: sev_snp.{name} is missing. See `cordon attest policy`.")
    return policy


def _intel(table: _Table) -> IntelPolicy:
    policy = IntelPolicy(
        mrenclave=table.take("mrenclave", _digests(32), frozenset()),
        mrsigner=table.take("mrsigner", _digests(32), frozenset()),
        minimum_isv_svn=table.take("minimum_isv_svn", _whole(2**16 - 1), 0),
        isv_prod_id=table.take("isv_prod_id", _whole(2**16 - 1), None),
        mrtd=table.take("mrtd", _digests(48), frozenset()),
        rtmrs={name: table.take(name, _digests(48), frozenset()) for name in RTMRS if name in table.held},
        tcb_statuses=table.take("tcb_statuses", _statuses, ("UpToDate",)),
        dynamic_platform=table.take("dynamic_platform", _boolean, False),
        cached_keys=table.take("cached_keys", _boolean, False),
        smt=table.take("smt", _boolean, False),
    )
    table.ends()
    if not (policy.mrenclave or policy.mrsigner or policy.mrtd):
        raise UserError(f"{table.path}: intel pins no code. Give mrenclave, mrsigner or mrtd.")
    if policy.mrsigner and not policy.mrenclave and policy.isv_prod_id is None:
        raise UserError(f"{table.path}: intel.mrsigner alone allows all of that signer. Give isv_prod_id.")
    if policy.mrtd and not {"rtmr1", "rtmr2"} <= set(policy.rtmrs):
        raise UserError(
            f"{table.path}: intel.mrtd measures the firmware alone. Give rtmr1 (kernel) and rtmr2 (command "
            "line, initrd) too."
        )
    return policy


def _root(text: str, folder: Path) -> tuple[str, str]:
    """Fingerprint and name of a root that is named, given as sha256:HEX, or a PEM file's path."""
    named = {name: held for held, name in amd_roots().items()}
    if text in named:
        return named[text], text
    if text.startswith("sha256:"):
        held = _one_digest(32)(text.removeprefix("sha256:")).hex()
        return held, amd_roots().get(held, text)
    if text.startswith("amd-"):
        raise ValueError(f"has {text!r}, which is none of {', '.join(named)}")
    certificate = x509.load_pem_x509_certificate((folder / text).read_bytes())
    held = fingerprint(certificate)
    return held, amd_roots().get(held, f"{text}, {'TEST ONLY' if is_test(certificate) else 'given'}")


def _crl(path: Path) -> x509.CertificateRevocationList:
    content = path.read_bytes()
    pem = content.lstrip().startswith(b"-----BEGIN")
    return x509.load_pem_x509_crl(content) if pem else x509.load_der_x509_crl(content)


def _minimum_tcb(held: Any) -> dict[str, dict[str, int]]:
    if not isinstance(held, dict) or not set(held) <= set(PRODUCTS):
        raise ValueError(f"must have a table for each of {', '.join(PRODUCTS)}, or some of them")
    for product, parts in held.items():
        if not isinstance(parts, dict) or set(parts) != set(TCB_LAYOUT[product]):
            raise ValueError(f"for {product} must give each of {', '.join(TCB_LAYOUT[product])}")
    return {product: {part: _whole(255)(x) for part, x in parts.items()} for product, parts in held.items()}


def _statuses(held: Any) -> tuple[str, ...]:
    values = _list(held, str)
    if not values or not set(values) <= set(TCB_STATUSES):
        raise ValueError(f"must be some of {', '.join(TCB_STATUSES)}")
    return tuple(values)


def _list(held: Any, kind: type[T]) -> list[T]:
    """A list with something in it: an empty one reads like "none", and "any" is said by leaving it out."""
    if not isinstance(held, list) or not all(type(item) is kind for item in held):
        raise ValueError(f"must be a list of {'texts' if kind is str else 'whole numbers'}")
    if not held:
        raise ValueError("is an empty list, which could mean none or any. Fill it, or leave the key out")
    return held


def _texts(held: Any) -> frozenset[str]:
    return frozenset(_list(held, str))


def _platform(held: Any) -> frozenset[str]:
    names = [name for name, _ in PLATFORM_INFO.values()]
    numbered = [f"bit{bit}" for bit in range(64) if bit not in PLATFORM_INFO]
    if wrong := [item for item in _list(held, str) if item not in (*names, *numbered)]:
        raise ValueError(f"has {wrong[0]!r}, which is none of {', '.join(names)}, {numbered[0]} to bit63")
    return frozenset(held)


def _mitigations(held: Any) -> frozenset[int]:
    return frozenset(_whole(63)(item) for item in _list(held, int))


def _digests(size: int) -> Callable[[Any], frozenset[bytes]]:
    return lambda held: frozenset(_one_digest(size)(item) for item in _list(held, str))


def _one_digest(size: int) -> Callable[[Any], bytes]:
    def read(held: Any) -> bytes:
        value = bytes.fromhex(held) if isinstance(held, str) and len(held) == 2 * size else b""
        if len(value) != size:
            raise ValueError(f"must be {2 * size} hexadecimal digits")
        return value

    return read


def _whole(most: int) -> Callable[[Any], int]:
    def read(held: Any) -> int:
        if type(held) is not int or not 0 <= held <= most:
            raise ValueError(f"must be a whole number from 0 to {most}")
        return held

    return read


def _boolean(held: Any) -> bool:
    if type(held) is not bool:
        raise ValueError("must be true or false")
    return held


def _time(held: Any) -> datetime:
    if not isinstance(held, datetime):
        raise ValueError("must be a date and time, such as 2026-01-31T00:00:00Z")
    return held if held.tzinfo else held.replace(tzinfo=UTC)
