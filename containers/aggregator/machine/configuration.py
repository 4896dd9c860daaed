"""What the host tells the VM: the run's plan, who takes part, where to listen. Bound to the SEV-SNP report.

The launch puts the SHA-256 of the configuration into HOST_DATA, which every report carries and a policy pins
(``host_data``). A VM whose report says another hash does not start; so sites that pin it know the plan and
the keys that take part. It holds no secret.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cordon.errors import AttestationError, UserError
from cordon.federation.credentials import public_pem
from cordon.federation.plan import Site, read_sites

SETTINGS = "aggregator.toml"
SITES = "sites.csv"
REQUIRED = frozenset({SETTINGS, SITES, "plan.json"})
# The VCEK of the chip (DER), for hosts that do not hand it to their guests: QEMU's.
VCEK = "vcek.der"
ALLOWED = REQUIRED | {"pretrained.safetensors", VCEK}
KEY = re.compile(r"keys/[A-Za-z0-9][A-Za-z0-9_.-]*\.pub")
# An emulator's keys: for TEST ONLY machines.
EMULATOR = frozenset(f"emulator/{name}" for name in ("ark.key", "ark.pem", "ask.key", "ask.pem"))


@dataclass(frozen=True)
class Settings:
    """aggregator.toml: addresses of the VM, and the aggregator's own options."""

    address: str
    gateway: str = ""
    port: int = 9092
    names: tuple[str, ...] = ()
    min_sites: int = 2
    join_deadline: float = 600.0
    round_deadline: float = 600.0
    ban_after: int = 3

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        return ipaddress.IPv4Interface(self.address)


@dataclass(frozen=True)
class Configuration:
    """``files`` by name, ``settings`` of one of them, and the SHA-256 of all, as HOST_DATA has it."""

    files: Mapping[str, bytes]
    settings: Settings
    digest: bytes


def parse(content: bytes, files: Mapping[str, bytes], *, test_only: bool) -> Configuration:
    """The configuration in ``files``, unpacked from ``content``; UserError where something is amiss."""
    allowed = ALLOWED | (EMULATOR if test_only else frozenset())
    if extra := {name for name in files.keys() - allowed if not KEY.fullmatch(name)}:
        raise UserError(
            f"the configuration holds {', '.join(sorted(extra))}. Allowed are keys/SITE.pub and "
            f"{', '.join(sorted(allowed))}."
        )
    if missing := REQUIRED - files.keys():
        raise UserError(f"the configuration lacks {', '.join(sorted(missing))}. Add it to the tar file.")
    return Configuration(files, _settings(files[SETTINGS]), hashlib.sha256(content).digest())


def _settings(content: bytes) -> Settings:
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Settings)}
    try:
        held = tomllib.loads(content.decode())
    except ValueError as error:
        raise UserError(f"{SETTINGS}: {error}.") from None
    if unknown := held.keys() - kinds:
        raise UserError(f"{SETTINGS}: no setting is called {', '.join(sorted(unknown))}.")
    for name, value in held.items():
        if name == "names":
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise UserError(f"{SETTINGS}: names is not a list of texts.")
            held[name] = tuple(value)
        elif kinds[name] == "float" and type(value) is int:
            held[name] = float(value)
        elif type(value).__name__ != kinds[name]:
            raise UserError(f"{SETTINGS}: {name} = {value!r} is not a {kinds[name]}.")
    try:
        settings = Settings(**held)
        ipaddress.IPv4Interface(settings.address)
        ipaddress.IPv4Address(settings.gateway or "0.0.0.0")
    except (TypeError, ValueError) as error:
        raise UserError(f'{SETTINGS}: {error}. Give address = "10.0.2.15/24" and a gateway.') from None
    if not 1024 <= settings.port <= 65535:
        raise UserError(f"{SETTINGS}: port {settings.port} is not of 1024 to 65535.")
    return settings


def enrolment(folder: Path) -> list[Site]:
    """The sites of the configuration in ``folder``, each with its public key."""
    sites = []
    for site in read_sites(folder / SITES):
        key = folder / "keys" / f"{site.name}.pub"
        if not key.exists():
            raise UserError(f"the configuration lacks keys/{key.name}. Add the site's public key.")
        sites.append(replace(site, public_key=public_pem(key)))
    return sites


def check_bound(configuration: Configuration, report: bytes) -> None:
    """AttestationError where the SEV-SNP ``report`` of this VM was launched with another configuration."""
    from cordon.attestation.snp_report import Report

    launched = Report.parse(report).host_data
    if launched != configuration.digest:
        raise AttestationError(
            f"the configuration has the SHA-256 {configuration.digest.hex()}, and the VM was launched with "
            f"{launched.hex()} as its host data. Launch it with the configuration's."
        )
