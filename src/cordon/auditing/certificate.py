"""The certificate of a model: what it promises, on what trust, and what attacks achieved; signed.

It is a file of JSON for people and programs. The signature is over its content with sorted keys, so that
spaces and line breaks do not matter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cordon.auditing.checks import Check
from cordon.auditing.reviewer_questions import answers, law
from cordon.auditing.training import TrainedBy
from cordon.errors import NotReleased, UserError
from cordon.federation.plan import Plan
from cordon.files import parse_json, write_durably
from cordon.ledger.hash_chain import BROKEN, hexadecimal, opened, public_key, sealed
from cordon.ledger.log import Tip
from cordon.ledger.provenance import Verdict, software
from cordon.model.released import Model
from cordon.privacy.events import all_mechanisms
from cordon.privacy.guarantee import ADJACENCY

KIND = "cordon certificate 3"
# By either accountant: over all runs, and of this one alone.
EPSILONS = ("epsilon_rdp", "epsilon_pld", "run_epsilon_rdp", "run_epsilon_pld")
TRUST = (
    "Each site ran the code that it names on its own rows, and found what it says; an aggregator cannot see "
    "that a site's noise is fresh or that its data are real.",
    "Declared patients and weights are what the sites said in public, never exact counts.",
    "Attacks are those that were run, with what is said to be known; others may achieve more, up to epsilon.",
)


@dataclass(frozen=True)
class Subject:
    """What a certificate is about; ``sites`` are the record's, or the one site that audits.

    ``audit`` is the attempt that it comes of (`cordon.auditing.attempts`), ``ledger`` where the ledger was
    after it.
    """

    model: Model
    plan: Plan
    sites: Sequence[Mapping[str, Any]]
    ledger: Tip
    trained_by: Sequence[TrainedBy]
    audit: Mapping[str, Any]


def certificate(subject: Subject, checks: Sequence[Check], claims: Mapping[str, Any]) -> dict[str, Any]:
    """The content, unsigned, of what may leave the site; ``claims`` are the figures of `check_claims`.

    The guarantee's ``epsilon`` is the model's own, of what its key was charged (``scope``, ``mechanism``).
    Beside it stands what the ledger comes to: ``epsilon_rdp`` and ``epsilon_pld`` over all runs
    (``lifetime_scope``, ``lifetime_mechanism``), and what begins with ``run_`` of this run alone.
    """
    model, plan = subject.model, subject.plan
    epsilon = float(claims["claimed"])
    recomputed = claims["recomputed"]
    guarantee = {
        "epsilon": epsilon, "accountant": plan.accountant.upper(), "delta": plan.delta, "unit": plan.unit,
        "mechanism": claims["mechanism"], "adjacency": ADJACENCY, "scope": claims["scope"],
        **{name: _most(recomputed, name) for name in EPSILONS},
        "lifetime_mechanism": all_mechanisms(item["mechanism"] for item in recomputed),
        "lifetime_scope": claims["lifetime_scope"], "run_mechanism": plan.mechanism,
        "ledger": claims["ledger"], "ledgers": claims["ledgers"],
        "budget": plan.budget, "sites_per_patient": plan.sites_per_patient,
        "at_more_sites": claims["at_more_sites"],
    }  # fmt: skip
    sites = [
        {name: site.get(name) for name in ("site", "declared_patients", "weight", "status")}
        for site in subject.sites
    ]
    return {
        "kind": KIND,
        "issued": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": {"hash": model.hash, "architecture": model.architecture, "run": plan.run},
        "guarantee": guarantee,
        "risks": list(claims["risks"]),
        "plan": plan.to_dict(),
        "sites": sites,
        "trained_by": [site.to_dict() for site in subject.trained_by],
        "audit": dict(subject.audit),
        "trust": list(TRUST),
        "checks": [check.to_dict(shareable=True) for check in checks],
        "questions": answers(plan, guarantee, sites, claims["risks"]),
        "law": law(),
        "ledger": {"key": subject.ledger.key, "rows": subject.ledger.rows, "head": subject.ledger.digest},
        "software": software(),
    }  # fmt: skip


def _most(recomputed: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The largest of the ledger's figures; None where one cannot be had."""
    values = [item[name] for item in recomputed]
    return None if None in values or not values else float(max(values))


def signed(content: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """``content`` with the public key, its hash and its signature, laid out to be read."""
    line = sealed({**content, "public_key": hexadecimal(key.public_key())}, key)
    return json.dumps(json.loads(line), indent=2, ensure_ascii=False).encode() + b"\n"


def issue(
    path: Path, subject: Subject, checks: Sequence[Check], claims: Mapping[str, Any], key: Ed25519PrivateKey
) -> None:
    """Write the signed certificate to ``path``, whole or not at all; NotReleased where a check failed."""
    refuse_failed(checks)
    write_durably(path, signed(certificate(subject, checks, claims), key))
    path.chmod(0o644)


def refuse_failed(checks: Sequence[Check]) -> None:
    """NotReleased, with every failed check and its reason; private figures stay in the details."""
    hidden = "failed; its figures are of patients' rows and stay in the details"
    failed = [
        f"  - {check.name}: {hidden if check.private else check.reason}" for check in checks if check.failed
    ]
    if failed:
        said = ["the model must not leave: its audit failed, and nothing was published.", *failed]
        said.append("Keep the model where it is, mend what the reasons name, and train anew.")
        raise NotReleased("\n".join(said))


def read(path: Path) -> dict[str, Any]:
    """The content of the certificate at ``path``; UserError where it is none."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError(f"of kind {content['kind']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no certificate of this version of Cordon ({error}). "
            "Ask for the certificate that came with the model."
        ) from error
    return dict(content)


def verify(path: Path, model: Model, *, key: str | None = None) -> dict[str, Any]:
    """The content of a certificate that holds for ``model``; NotReleased where it does not.

    The signature must be by ``key`` (64 hexadecimal digits, or a file), by default the ledger key that the
    model carries. No check may have failed.
    """
    content = read(path)
    tip = model.privacy.get("ledger")
    trusted = key or (tip.get("key") if isinstance(tip, dict) else None)
    if not trusted:
        raise UserError(f"{path}: the model names no ledger. Give --key, the public key of who certified it.")
    try:
        body, _ = opened(json.dumps(content, sort_keys=True).encode(), public_key(str(trusted)))
    except BROKEN as error:
        raise NotReleased(
            f"{path}: its signature is not by {str(trusted)[:16]}: it was changed, or another certified it. "
            "Ask for the certificate that came with the model, or give --key if you trust another."
        ) from error
    if body["model"]["hash"] != model.hash:
        raise NotReleased(
            f"{path}: certifies the model {body['model']['hash'][:12]}, and this one is {model.hash[:12]}. "
            "Ask for this model's own."
        )
    for name in ("epsilon", "accountant", "delta", "unit", "mechanism", "adjacency"):
        if body["guarantee"][name] != model.privacy.get(name):
            raise NotReleased(
                f"{path}: certifies {name} {body['guarantee'][name]!r}, and the model states "
                f"{model.privacy.get(name)!r}. Ask for this model's own."
            )
    counted, stated = (said.get("sites_per_patient", 1) for said in (body["guarantee"], model.privacy))
    if counted != stated:
        raise NotReleased(
            f"{path}: counts a person at {counted} sites, and the model at {stated}. "
            "Ask for this model's own."
        )
    failed = [check["name"] for check in body["checks"] if check["verdict"] == Verdict.FAILED]
    if failed:
        raise NotReleased(f"{path}: says itself that {', '.join(failed)} failed. Do not use the model.")
    return body
