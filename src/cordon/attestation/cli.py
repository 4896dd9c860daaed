"""`cordon attest`: look at the evidence of an aggregator by hand, and write the policy for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cordon.console.commands import EXISTING, OUTPUT, Facts, Group
from cordon.errors import AttestationError, UserError
from cordon.transport.address import ADDRESS

if TYPE_CHECKING:
    from cordon.attestation.evidence import Evidence
    from cordon.attestation.verified import Verified

PRODUCTS = ("milan", "genoa", "turin")
MOST_BYTES = 256 * 1024
UNJUDGED = "no policy was given: the report is genuine, but nothing says that the guest is the one you want"
DEBUGGED = "the guest may be debugged: its host can read all that it holds, whoever it is"


@click.group(cls=Group, short_help="See whether an aggregator is the one agreed on.")
def attest() -> None:
    """Verify that an aggregator runs in the confidential VM that its sites agreed on."""


@attest.command(verdict="verified", short_help="Verify a report or a quote offline.")
@click.option("--report", type=EXISTING, help="SEV-SNP report, binary or hexadecimal.")
@click.option("--vcek", type=EXISTING, help="Its VCEK or VLEK, DER or PEM.")
@click.option(
    "--chain", type=EXISTING, multiple=True, help="ASK and ARK, DER or PEM; repeatable.  [default: AMD's own]"
)
@click.option("--quote", type=EXISTING, help="Intel SGX or TDX quote, binary or hexadecimal.")
@click.option("--collateral", type=EXISTING, help="Its collateral, JSON.")
@click.option(
    "--policy",
    type=EXISTING,
    help="What it must satisfy (policy.toml).  [default: only whether it is genuine]",
)
@click.option("--report_data", help="The 64 bytes that it must carry: 128 hexadecimal digits.")
@click.option(
    "--at",
    type=click.DateTime(),
    metavar="TIME",
    help="Verify as of this time, UTC, such as 2026-01-31T12:00:00.  [default: now]",
)
@click.option("--allow_debug", is_flag=True, help="Without a policy: show a guest that may be debugged too.")
def verify(
    report: str | None, vcek: str | None, chain: Sequence[str], quote: str | None, collateral: str | None,
    policy: str | None, report_data: str | None, at: datetime | None, allow_debug: bool,
) -> Facts:  # fmt: skip
    """Verify a report or a quote offline: exit status 0, or 7 and the reason.

    The last word is "verified" where a policy accepts it. Without a policy it is "genuine", which says who
    made it and nothing of what runs there.
    """
    from cordon.attestation import verify as verification
    from cordon.attestation.policy import Policy

    now = (at or datetime.now(UTC)).replace(tzinfo=UTC)
    wanted = None if report_data is None else _hexadecimal(report_data, 64)
    rules = None if policy is None else Policy.read(policy)
    if rules is not None and allow_debug:
        raise UserError("--allow_debug goes without a policy, which says it itself. Drop one of the two.")
    evidence = _evidence(report, vcek, chain, quote, collateral)
    if rules is not None:
        found = verification.verify(evidence, rules, report_data=wanted, now=now)
        return _shown(found, policy=policy, time=now.isoformat())
    found = verification.genuine(evidence, report_data=wanted, now=now)
    if found.debug and not allow_debug:
        raise AttestationError(
            f"The report is genuine, but {DEBUGGED}. Do not connect; to look at it all the same, give "
            "--allow_debug."
        )
    notes = [UNJUDGED, *([DEBUGGED] if found.debug else [])]
    return _shown(found, verdict="genuine", time=now.isoformat(), notes=notes)


@attest.command()
@click.option("--from_report", type=EXISTING, help="Fill in the measurement and TCB of this SEV-SNP report.")
@click.option("--product", type=click.Choice(PRODUCTS), help="Its processor, for a report of version 2.")
@click.option("--ovmf", type=EXISTING, help="Compute the measurement of a VM with this firmware.")
@click.option("--kernel", type=EXISTING, help="The VM's kernel.")
@click.option("--initrd", type=EXISTING, help="Its initial RAM disk.")
@click.option("--append", default="", help="The kernel's command line.")
@click.option("--vcpus", type=click.IntRange(1), default=1, show_default=True, help="Its vCPUs.")
@click.option("--vcpu_type", default="EPYC-v4", show_default=True, help="QEMU's name of the vCPU's type.")
@click.option(
    "--vmm", type=click.Choice(("QEMU", "ec2", "gce")), default="QEMU", show_default=True, help="Who runs it."
)
def policy(
    from_report: str | None, product: str | None, ovmf: str | None, kernel: str | None, initrd: str | None,
    append: str, vcpus: int, vcpu_type: str, vmm: str,
) -> Facts:  # fmt: skip
    """Print a policy.toml with comments, to start from."""
    from cordon.attestation.template import launch_measurement, template

    if ovmf is None and (kernel or initrd or append):
        raise UserError("--kernel, --initrd and --append need the firmware that measures them. Give --ovmf.")
    measurement = None
    if ovmf is not None:
        measurement = launch_measurement(
            ovmf=Path(ovmf), kernel=Path(kernel) if kernel else None,
            initrd=Path(initrd) if initrd else None, append=append, vcpus=vcpus, vcpu_type=vcpu_type, vmm=vmm,
        )  # fmt: skip
    text = template(measurement, _binary(from_report) if from_report else None, product)
    return Facts({"policy": text, "computed_measurement": measurement}, text.splitlines())


@attest.command(verdict="verified", short_help="Fetch an aggregator's evidence and verify it.")
@click.option("--address", type=ADDRESS, required=True, metavar="HOST:PORT", help="The aggregator's address.")
@click.option("--policy", type=EXISTING, required=True, help="What it must satisfy (policy.toml).")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds for all of it.")
@click.option("--certificate", type=OUTPUT, help="Write the attested certificate (PEM) here.")
def evidence(address: str, policy: str, timeout: float, certificate: str | None) -> Facts:
    """Fetch an aggregator's evidence and verify it, as a site does before it connects."""
    from cordon.attestation.client import fetch
    from cordon.attestation.policy import Policy

    rules = Policy.read(policy)
    attested = fetch(address, rules, timeout=timeout)
    if certificate is not None:
        Path(certificate).write_bytes(attested.certificate)
    return _shown(attested.found, address=address, policy=policy)


def _shown(
    found: Verified, *, verdict: str = "verified", notes: Sequence[str] = (), **about: str | None
) -> Facts:
    held: dict[str, Any] = {name: value for name, value in about.items() if value is not None}
    held |= found.to_dict()
    if found.test_only:
        notes = [*notes, "TEST ONLY: an emulator's root; nothing is proved about any hardware"]
    lines = [f"{name.replace('_', ' ')}: {_word(value)}" for name, value in held.items()]
    lines += [*(f"note: {note}" for note in notes), verdict]
    return Facts({"genuine": True, "verified": verdict == "verified"} | held | {"notes": list(notes)}, lines)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _evidence(
    report: str | None, vcek: str | None, chain: Sequence[str], quote: str | None, collateral: str | None
) -> Evidence:
    from cordon.attestation.evidence import Evidence
    from cordon.attestation.guest import completed
    from cordon.attestation.intel import kind_of

    if report and vcek and not (quote or collateral):
        leaf, *others = (item for path in (vcek, *chain) for item in _certificates(path))
        return Evidence("sev-snp", _binary(report), completed([leaf, *_root_last(others)]))
    if quote and collateral and not (report or vcek or chain):
        raw = _binary(quote)
        return Evidence(kind_of(raw), raw, (), _content(collateral).decode("utf-8", "replace"))
    raise UserError(
        "what is to be verified is not whole, or of two kinds. Give --report and --vcek (SEV-SNP), or "
        "--quote and --collateral (Intel)."
    )


def _certificates(path: str) -> list[bytes]:
    """DER of the certificates in a file, PEM or DER one after another."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from cordon.attestation.certificates import concatenated, load_pem

    content = _content(path)
    if b"-----BEGIN" not in content:
        return concatenated(content)
    return [item.public_bytes(Encoding.DER) for item in load_pem(content)]


def _root_last(chain: Sequence[bytes]) -> list[bytes]:
    from cordon.attestation.certificates import load

    held = [(load(der), der) for der in chain]
    return [der for _, der in sorted(held, key=lambda item: item[0].subject == item[0].issuer)]


def _binary(path: str) -> bytes:
    """The bytes of a file, or those that its hexadecimal digits stand for."""
    content = _content(path)
    try:
        return bytes.fromhex(content.decode("ascii"))
    except ValueError:
        return content


def _content(path: str) -> bytes:
    with open(path, "rb") as handle:
        content = handle.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: is larger than {MOST_BYTES} bytes, so it is no evidence. Check the file.")
    return content


def _hexadecimal(text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise UserError(
            f"--report_data is not {2 * size} hexadecimal digits. Give the digest that the report must carry."
        )
    return value
