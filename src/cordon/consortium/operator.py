"""The operator's folder: study, key, plan, what the aggregator listens with, and its state."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

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


class Operator:
    """A consortium as its operator keeps it in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """UserError where no consortium is there."""
        if not (folder / STUDY).exists() or not (folder / KEY).exists():
            raise UserError(
                f"{folder}: no consortium is there. Begin one: cordon consortium init NAME --folder {folder}"
            )
        self.folder = folder

    @classmethod
    def begin(cls, folder: Path, name: str) -> Operator:
        """Make the folder of a new consortium; UserError where there is one."""
        if not SITE_NAME.fullmatch(name):
            raise UserError(f"{name!r}: is no name. Use letters, digits, _ . and -.")
        if any((folder / one).exists() for one in (KEY, STUDY, STATE)):
            raise UserError(
                f"{folder}: a consortium is there already. Give another --folder, or go on with it."
            )
        write_new_key(folder / KEY, ec.generate_private_key(ec.SECP384R1()))
        in_two_years = datetime.date.today() + datetime.timedelta(days=730)
        (folder / STUDY).write_text(TEMPLATE.format(name=name, expires=in_two_years.isoformat()))
        (folder / STATE).mkdir(mode=0o700)
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
        return [member.site for member in self._registry().members() if member.current]

    def expect(self, request: Request) -> None:
        """UserError where the study does not name the site that asks."""
        if (name := request.site.name) not in self.study.sites:
            raise UserError(
                f"{name} is not among the study's sites ({', '.join(self.study.sites)}). Add it to "
                f"{self.folder / STUDY} where that was agreed on."
            )

    def approve(self, request: Request, fingerprint: str) -> None:
        """Enrol the site that asks, whose key has the ``fingerprint`` that its owner told."""
        self.expect(request)
        expect_signer(request.paper, fingerprint, f"the request of {request.site.name}")
        self._registry().enrol(request.site)

    def plan(self) -> Plan:
        """What `write_plan` wrote; UserError where there is none."""
        if not (self.folder / PLAN).exists():
            raise UserError(f"{self.folder / PLAN}: there is no plan. Make it: cordon plan {self.folder}")
        return read_plan(self.folder / PLAN)

    def write_plan(self, plan: Plan) -> Path:
        with written_beside(self.folder / PLAN) as temporary:
            temporary.write_text(json.dumps(plan.to_dict(), indent=2) + "\n")
        return self.folder / PLAN

    def write_kit(self, address: str, policy: str) -> Path:
        """Sign the kit of this plan and these sites; without a ``policy`` a certificate is made."""
        study, plan = self.study, self.plan()
        path = self.folder / f"{study.name}.kit"
        certificate = "" if policy else self._certificate(split_address(address)[0])
        write_kit(
            path, study=study, plan=plan, sites=self.sites(), address=address, policy=policy,
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
        if not known.exists() or known.read_text() != host:
            server.mkdir(exist_ok=True)
            write_server(host, server)
            known.write_text(host)
        return (server / "ca.crt").read_text()

    def _registry(self) -> Registry:
        return Registry(ChainedLog(self.ledger))
