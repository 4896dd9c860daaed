"""The kit: one signed file with all that a site needs to take part, and what it agrees to by using it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cordon import __version__
from cordon.attestation.policy import Policy
from cordon.consortium.signed import Paper, expect_signer, read_paper, write_paper
from cordon.consortium.study import Study
from cordon.errors import UserError
from cordon.federation.credentials import private_identity
from cordon.federation.plan import Plan, Site, declared_site, identity
from cordon.files import written_beside
from cordon.transport.address import split_address

KIND = "kit"


@dataclass(frozen=True)
class Kit:
    """What all sites of a run agree on, as the operator signed it.

    ``roster`` has each site with the fingerprint of its key; of ``policy`` (what the aggregator must attest,
    TOML) and ``certificate`` (its authority's, PEM) one is empty.
    """

    study: Study
    plan: Plan
    roster: tuple[tuple[Site, str], ...]
    address: str
    policy: str
    certificate: str
    paper: Paper

    @property
    def lines(self) -> list[str]:
        """What a site agrees to, in sentences."""
        plan = self.plan
        shown = "its attestation, by the policy in the kit" if self.policy else "the certificate in the kit"
        return [
            *self.study.lines,
            f"plan: {plan.model}, {plan.rounds} rounds of {plan.local_steps} steps, at most {plan.stated()}",
            f"aggregator {self.address}, known by {shown}",
            *(
                f"  {site.name}: {site.declared_patients} declared patients, weight {site.weight:g}, key "
                f"{key[:16]}"
                for site, key in self.roster
            ),
        ]


def write_kit(
    path: Path, *, study: Study, plan: Plan, sites: Sequence[Site], address: str, policy: str,
    certificate: str, key: Path,
) -> str:  # fmt: skip
    """Sign and write the kit; returns the fingerprint of the operator's ``key``.

    UserError where plan and study disagree, or a site is not one of the study's.
    """
    if faults := [*_disagreements(study, plan, sites)]:
        raise UserError(f"{path}: {'; '.join(faults)}. Make the plan anew, or mend study.toml.")
    if bool(policy) == bool(certificate):
        raise UserError("an aggregator is known by a policy or by a certificate. Give one of them.")
    _check_policy(policy, path)
    if study.over:
        raise UserError(f"{path}: {study.over}. Nothing was signed. Renew study.toml, and plan again.")
    content = {
        "study": asdict(study), "plan": plan.to_dict(), "address": address, "policy": policy,
        "certificate": certificate,
        "roster": [
            {
                "site": site.name, "declared_patients": site.declared_patients, "weight": site.weight,
                "key": identity(site),
            }
            for site in sites
        ],
    }  # fmt: skip
    return write_paper(KIND, content, key, path)


def read_kit(path: Path, told: str) -> Kit:
    """The kit in a file, signed by the operator whose key's fingerprint a site was ``told``.

    UserError where it is none, another key's, of another version, or disagrees with itself.
    """
    paper = read_paper(KIND, path)
    expect_signer(paper, told, f"{path}")
    if paper.version != __version__:
        raise UserError(
            f"{path}: made with Cordon {paper.version}, and this is {__version__}. All sites of a run take "
            "one version: install that of the kit, or ask for a new kit."
        )
    held: dict[str, Any] = dict(paper.content)
    try:
        split_address(held["address"])
        roster = tuple(
            (declared_site(row["site"], row["declared_patients"], float(row["weight"])), str(row["key"]))
            for row in held["roster"]
        )
        study = Study.of(held["study"], str(path))
        kit = Kit(
            study, Plan.from_dict(held["plan"]), roster, held["address"], str(held["policy"]),
            str(held["certificate"]), paper,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a kit ({error!r:.200}). Ask the operator for a new one.") from error
    if faults := [*_disagreements(study, kit.plan, [site for site, _ in roster])]:
        raise UserError(f"{path}: {'; '.join(faults)}. Ask the operator for a new kit.")
    if bool(kit.policy) == bool(kit.certificate):
        raise UserError(f"{path}: does not say how the aggregator is known. Ask the operator for a new kit.")
    _check_policy(kit.policy, path)
    return kit


def _check_policy(policy: str, path: Path) -> None:
    """UserError where the text of a policy is none."""
    if not policy:
        return
    with TemporaryDirectory() as folder:
        text = Path(folder) / "policy.toml"
        text.write_text(policy)
        try:
            Policy.read(text)
        except UserError as error:
            raise UserError(f"{path}: {str(error).replace(str(text), 'policy.toml')}") from error


def unpack(kit: Kit, folder: Path) -> Site:
    """Write the kit's parts beside a site's key in ``folder``, and run.yml, which names them to Nextflow.

    They are plan.json, sites.csv, and policy.toml or ca.crt. UserError where the key in the folder is not in
    the roster, or the study is over.

    Returns: the site, as the operator enrolled it.
    """
    key = folder / "site.key"
    if not key.exists():
        raise UserError(f"{key}: no key. Give the folder that `cordon site init` made.")
    own = private_identity(key)
    mine = [site for site, known in kit.roster if known == own]
    if not mine:
        names = ", ".join(site.name for site, _ in kit.roster) or "nobody"
        raise UserError(
            f"{key}: the kit is for {names}, and this key ({own}) is none of theirs. Send your request to "
            "the operator, and ask for a kit with it."
        )
    kit.plan.check_expiry()
    sheet = "site,declared_patients,weight\n" + "".join(
        f"{site.name},{site.declared_patients},{site.weight!r}\n" for site, _ in kit.roster
    )
    known = ("policy.toml", kit.policy) if kit.policy else ("ca.crt", kit.certificate)
    plan = json.dumps(kit.plan.to_dict(), indent=2) + "\n"
    for name, text in (("plan.json", plan), ("sites.csv", sheet), known):
        with written_beside(folder / name) as temporary:
            temporary.write_text(text)
    (folder / ("ca.crt" if kit.policy else "policy.toml")).unlink(missing_ok=True)
    with written_beside(folder / "run.yml") as temporary:
        temporary.write_text(_parameters(kit, folder.absolute()))
    return mine[0]


def _parameters(kit: Kit, folder: Path) -> str:
    """What a site gives Nextflow with -params-file: everything but its own samples and reference."""
    known = {"aggregator_policy": "policy.toml"} if kit.policy else {"aggregator_ca": "ca.crt"}
    named = {"plan": "plan.json", "sites": "sites.csv", "site_key": "site.key"} | known
    terms = {
        "aggregator": kit.address, "epsilon": kit.study.lifetime_epsilon, "delta": kit.study.delta,
        "run_epsilon": kit.study.run_epsilon, "privacy_unit": kit.study.unit,
        "accountant": kit.plan.accountant, "state_dir": str(folder / "state"),
    }  # fmt: skip
    given = terms | {name: str(folder / file) for name, file in named.items()}
    text: str = yaml.safe_dump(given, sort_keys=True)
    return f"# Of the study {kit.study.name}, for nextflow run . -params-file\n{text}"


def _disagreements(study: Study, plan: Plan, sites: Sequence[Site]) -> Iterator[str]:
    for name, other in (("study", study.hash), ("expires", study.expires), ("unit", study.unit)):
        if getattr(plan, name) != other:
            yield f"the plan's {name} is {getattr(plan, name) or 'not set'!r} and the study's {other!r}"
    if plan.delta != study.delta:
        yield f"the plan's delta is {plan.delta:g} and the study's {study.delta:g}"
    for name, costs in (("run_epsilon", plan.epsilon), ("lifetime_epsilon", plan.budget)):
        if costs > (most := getattr(study, name)) * (1 + 1e-9):
            yield f"the plan may cost {costs:g} and the study's {name} is {most:g}"
    if strangers := sorted({site.name for site in sites} - set(study.sites)):
        yield f"{', '.join(strangers)} is not among the study's sites"
    if not sites:
        yield "nobody is enrolled"
