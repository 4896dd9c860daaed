"""The operator's folder: study, key, plan, what the aggregator listens with, and its state."""

from __future__ import annotations

import datetime
import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cordon.consortium.kit import Kit, read_kit, write_kit
from cordon.consortium.request import Request
from cordon.consortium.signed import expect_signer
from cordon.consortium.study import TEMPLATE, Study, read_study
from cordon.errors import UserError
from cordon.federation.aggregator.registry import Registry
from cordon.federation.credentials import private_identity, write_new_key, write_server
from cordon.federation.plan import SITE_NAME, Plan, Site, identity, read_plan
from cordon.files import written_beside
from cordon.ledger.log import ChainedLog
from cordon.transport.address import split_address

STUDY, KEY, STATE, PLAN, SERVER = "study.toml", "operator.key", "state", "plan.json", "aggregator"
# Whom the plan was made for.
PLANNED_FOR = "planned_for.json"
# A certificate that ends within so many days is made anew.
SOON = 90


class Operator:
    """A consortium as its operator keeps it in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """UserError where no consortium is there."""
        if missing := [name for name in (STUDY, KEY) if not (folder / name).exists()]:
            raise UserError(
                f"{folder}: no consortium is there ({' and '.join(missing)} is missing). Begin one (cordon "
                "consortium init), or put the file back from a copy."
            )
        self.folder = folder

    @classmethod
    def begin(cls, folder: Path, name: str) -> Operator:
        """Make the folder of a new consortium; UserError where there is one."""
        if not SITE_NAME.fullmatch(name):
            raise UserError(f"{name!r}: is no name. Use letters, digits, _ . and -.")
        if here := [one for one in (KEY, STUDY, STATE) if (folder / one).exists()]:
            raise UserError(
                f"{folder}: a consortium is there already ({', '.join(here)}). Give another --folder, go on "
                "with it, or take away what a broken start left."
            )
        (folder / STATE).mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
        in_two_years = datetime.date.today() + datetime.timedelta(days=730)
        with written_beside(folder / STUDY) as temporary:
            temporary.write_text(TEMPLATE.format(name=name, expires=in_two_years.isoformat()))
        write_new_key(folder / KEY, ec.generate_private_key(ec.SECP384R1()))
        return cls(folder)

    @property
    def fingerprint(self) -> str:
        """Of the operator's key: by it sites know what is the operator's."""
        return private_identity(self.folder / KEY)

    @property
    def study(self) -> Study:
        return read_study(self.folder / STUDY)

    @property
    def ledger(self) -> Path:
        """The aggregator's."""
        return self.folder / STATE / "ledger.sqlite"

    def sites(self) -> list[Site]:
        """Who is enrolled now."""
        return [member.site for member in self._registry.members() if member.current]

    def standing(self, request: Request) -> list[str]:
        """What of the site that asks is there already, and would be changed; and whether it is banned."""
        told = []
        for member in self._registry.members():
            if member.site.name == request.site.name and member.current:
                was = f"{member.site.declared_patients} patients, weight {member.site.weight:g}"
                if member.identity == request.paper.fingerprint:
                    same = replace(member.site, public_key="") == replace(request.site, public_key="")
                    told.append("it is enrolled so already" if same else f"it is enrolled with {was}")
                else:
                    told.append(
                        f"it is enrolled with the key {member.identity[:16]} ({was}), whose place this one "
                        "takes: what was spent under the other stays on record and counts no more"
                    )
            if member.site.name == request.site.name and member.banned:
                told.append(f"its key {member.identity[:16]} is banned: {member.banned}")
        return told

    def expect(self, request: Request) -> None:
        """UserError where the study does not name the site that asks."""
        if (name := request.site.name) not in self.study.sites:
            raise UserError(
                f"{name} is not among the study's sites ({', '.join(self.study.sites)}). Add it to "
                f"{self.folder / STUDY} where that was agreed on."
            )

    def approve(self, request: Request, fingerprint: str, *, replacing: bool = False) -> None:
        """Enrol the site that asks, whose key has the ``fingerprint`` that its owner told.

        UserError where that changes who is enrolled and is not ``replacing``, or a key of the site is banned.
        """
        self.expect(request)
        expect_signer(request.paper, fingerprint, f"the request of {request.site.name}")
        standing, name = self.standing(request), request.site.name
        if banned := [line for line in standing if "is banned" in line]:
            raise UserError(
                f"{name}: {banned[0]}. Release it first, where that is right: cordon aggregator release "
                f"{name} --state {self.folder / STATE}"
            )
        if standing and "so already" not in standing[0] and not replacing:
            raise UserError(f"{name}: {standing[0]}. Give --replace where that is meant.")
        self._registry.enrol(request.site)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """UserError where another process runs this consortium's aggregator."""
        with (self.folder / "running.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.folder}: its aggregator is running already. End that one, or let it go on."
                ) from None
            yield

    def plan(self) -> Plan:
        """What `write_plan` wrote; UserError where there is none."""
        if not (self.folder / PLAN).exists():
            raise UserError(f"{self.folder / PLAN}: there is no plan. Make it: cordon plan {self.folder}")
        return read_plan(self.folder / PLAN)

    def write_plan(self, plan: Plan) -> Path:
        for name, held in ((PLANNED_FOR, _roster(self.sites())), (PLAN, plan.to_dict())):
            with written_beside(self.folder / name) as temporary:
                temporary.write_text(json.dumps(held, indent=2) + "\n")
        return self.folder / PLAN

    def _planned_for(self) -> list[list[Any]]:
        path = self.folder / PLANNED_FOR
        found: list[list[Any]] = json.loads(path.read_text()) if path.exists() else []
        return found

    def write_kit(self, address: str, policy: str) -> Path:
        """Sign the kit of this plan and these sites; without a ``policy`` a certificate is made."""
        study, plan, sites = self.study, self.plan(), self.sites()
        if self._planned_for() != _roster(sites):
            raise UserError(
                f"{self.folder / PLAN} was made for other sites, keys or declarations than are enrolled now. "
                f"Plan again: cordon plan {self.folder}"
            )
        path = self.folder / f"{study.name}.kit"
        certificate = "" if policy else self._certificate(split_address(address)[0])
        write_kit(
            path, study=study, plan=plan, sites=sites, address=address, policy=policy,
            certificate=certificate, key=self.folder / KEY,
        )  # fmt: skip
        return path

    def kit(self) -> Kit:
        """What sites were given last; UserError where there is none, or plan and sites are others by now."""
        path = self.folder / f"{self.study.name}.kit"
        again = f"cordon consortium kit {self.folder} --address HOST:PORT"
        if not path.exists():
            raise UserError(f"{path}: sites have no kit yet. Sign it: {again}")
        kit = read_kit(path, self.fingerprint)
        if kit.plan != self.plan():
            raise UserError(
                f"{self.folder / PLAN} is not the plan that sites have by {path}. Nothing was started. Sign "
                f"a new kit, and send it: {again}"
            )
        if kit.study != self.study:
            raise UserError(
                f"{self.folder / STUDY} says something else than {path}, which sites have agreed to. Nothing "
                f"was started. Plan again (cordon plan {self.folder}), sign a new kit, and send it: {again}"
            )
        now = [(replace(site, public_key=""), identity(site)) for site in self.sites()]
        if [*kit.roster] != now:
            raise UserError(
                f"{path}: since it was signed, sites or their keys were changed. Nothing was started. Plan "
                f"again (cordon plan {self.folder}), sign a new kit, and send it: {again}"
            )
        return kit

    def _certificate(self, host: str) -> str:
        """The authority of a certificate for ``host``, which is made once for each host."""
        server = self.folder / SERVER
        known = server / "host"
        if not known.exists() or known.read_text() != host or _ends_soon(server / "server.crt"):
            known.unlink(missing_ok=True)
            server.mkdir(mode=0o700, exist_ok=True)
            write_server(host, server)
            known.write_text(host)
        return (server / "ca.crt").read_text()

    @cached_property
    def _registry(self) -> Registry:
        """Opened once: that verifies every row."""
        return Registry(ChainedLog(self.ledger))


def _roster(sites: Sequence[Site]) -> list[list[Any]]:
    return [[site.name, site.declared_patients, site.weight, identity(site)] for site in sites]


def _ends_soon(certificate: Path) -> bool:
    """Whether the certificate in a file is none, or ends within SOON days."""
    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return True
    return ends < datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=SOON)
