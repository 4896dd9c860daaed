"""`cordon audit` and `cordon certificate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cordon.console.commands import EXISTING, KEY, OUTPUT, Facts, Group, command, each, facts
from cordon.console.progress import telling

VERDICT = "{name}: {verdict}; {reason}{most}"
PRIVATE_KEY = "Its ledger with the key beside it: the aggregator's, or a site's own."


@command(short_help="Attack a model and the code that trained it; certify it.")
@click.argument("variants", nargs=-1, required=True, type=EXISTING)
@click.option("--model", "model_file", required=True, type=EXISTING, help="The model (safetensors).")
@click.option(
    "--record", required=True, type=EXISTING,
    help="What happened in its run: federation.json, or a site's spent.json.",
)  # fmt: skip
@click.option("--ledger", "ledger_file", required=True, type=EXISTING, help=PRIVATE_KEY)
@click.option("--held_out", multiple=True, type=EXISTING, help="Variants not trained on; repeatable.")
@click.option(
    "--pretrained", type=EXISTING,
    help="The public model that the run started from; without it, replays start from the architecture's own, "
    "and say less of the run.",
)  # fmt: skip
@click.option(
    "--rows", type=click.Choice(("private", "public")), default="private", show_default=True,
    help="Whether attacks' figures may be told: private ones stay out of the certificate.",
)  # fmt: skip
@click.option(
    "--trainings",
    default=64,
    show_default=True,
    type=click.IntRange(8),
    help="Trainings replayed for each attack.",
)
@click.option("--attack_auc", default=0.75, show_default=True, help="Largest AUC that an attack may reach.")
@click.option(
    "--attack_tpr",
    default=0.25,
    show_default=True,
    help="Largest share of members found at 1 % false positives.",
)
@click.option(
    "--same_person", type=click.Choice(("warn", "merge")), default="warn", show_default=True,
    help="merge: patients who seem to be one person are one unit, as where the model was trained.",
)  # fmt: skip
@click.option("--progress", "progress_file", type=OUTPUT, help="Progress lines also go here.")
@click.option("--certificate", required=True, type=OUTPUT, help="Written where the model may leave.")
@click.option("--details", required=True, type=OUTPUT, help="All figures (JSON); stays where the rows are.")
def audit(
    variants: tuple[str, ...], model_file: str, record: str, ledger_file: str, held_out: tuple[str, ...],
    pretrained: str | None, rows: str, trainings: int, attack_auc: float, attack_tpr: float,
    same_person: str, progress_file: str | None, certificate: str, details: str,
) -> Facts:  # fmt: skip
    """Attack a model and the code that trained it; certify it, or end with status 8 and why not.

    VARIANTS are labelled tables that the model was trained on. Attacks replay the run's plan on them and,
    with --held_out, compare the model itself on both.
    """
    from cordon.auditing.attempts import Attempt
    from cordon.auditing.certificate import Subject, issue, refuse_failed
    from cordon.auditing.checks import counted
    from cordon.auditing.release import AttackLimits, Audited, examine, settings_of
    from cordon.auditing.training import trained_by
    from cordon.errors import UserError
    from cordon.federation.plan import Plan
    from cordon.ledger.cohorts import Beside
    from cordon.ledger.hash_chain import read_private_key
    from cordon.ledger.log import key_path, read_log
    from cordon.ledger.rows import Kind
    from cordon.ledger.spending import by_cohort
    from cordon.model.initial_weights import initial_parameters
    from cordon.model.released import load
    from cordon.training.pretrain import read_public
    from cordon.training.units import Units
    from cordon.variants.same_person import MERGE, same_people

    happened = _record(Path(record))
    plan = Plan.from_dict(happened["plan"])
    if not key_path(Path(ledger_file)).exists():
        raise UserError(f"{ledger_file}: its key is not beside it. Certify where the ledger is kept.")
    model = load(Path(model_file))
    public = read_public(Path(pretrained)) if pretrained else None
    start = public.parameters if public is not None and public.hash == plan.start else None
    if plan.start and start is None:
        click.echo(
            f"warning: the run started from the public model {plan.start[:12]}, which is not here: replays "
            "start from the architecture's own, and say less of the run. Give that model as --pretrained.",
            err=True,
        )

    def read(paths: tuple[str, ...]) -> Units:
        tables = [Path(path) for path in paths]
        merge = same_person == MERGE and plan.unit == "patient"
        # The site said who they are when it trained.
        ids = same_people(tables, merge=True, say=lambda said: None) if merge else {}
        return Units.read(tables, unit=plan.unit, architecture=plan.model, one_id=ids)

    own, others = read(variants), read(held_out) if held_out else None
    limits = AttackLimits(auc=attack_auc, tpr=attack_tpr)
    attempt = Attempt(Path(ledger_file), model.hash, settings_of(limits, trainings))
    key = read_private_key(key_path(Path(ledger_file)))
    chain, _ = read_log(Path(ledger_file), key.public_key())
    of_site = any(row["kind"] == Kind.RESERVED for row in chain.rows)
    beside = Beside(Path(ledger_file)).chains() if of_site else []
    evidence = Audited(
        model, plan, start or initial_parameters(plan.model, len(model.features)), chain, own,
        others, public=rows == "public", model_hash=happened.get("model_hash"), beside=beside,
    )  # fmt: skip
    checks, verdicts = [], []
    with telling(progress_file) as tell:
        for check in examine(evidence, limits=limits, trainings=trainings, steps=tell.steps):
            checks.append(check)
            reason = "figures stay in the details" if check.private else check.reason
            most = f"; {check.most}" if check.most else ""
            verdicts.append({"name": check.name, "verdict": check.verdict, "reason": reason, "most": most})
            tell.say(VERDICT.format(**verdicts[-1]))
    tip = attempt.done(checks)
    everything = {
        "model": model.hash, "run": plan.run, "audit": attempt.to_dict(),
        "checks": [check.to_dict() for check in checks],
        # What follows from who took part stays with the rows.
        "cohorts": [cohort.to_dict() for cohort in by_cohort(chain, beside)],
    }  # fmt: skip
    Path(details).write_text(json.dumps(everything, indent=2) + "\n")
    refuse_failed(checks)
    trained = trained_by(chain.rows, plan.run)
    subject = Subject(model, plan, happened.get("sites", []), tip, trained, attempt.to_dict())
    issue(Path(certificate), subject, checks, checks[0].figures, key)
    told = "{certificate}: the model {model_hash} may leave; {counts}; {attempt}"
    about = {"certificate": certificate, "model_hash": model.hash, "counts": counted(checks)}
    return each("checks", VERDICT, verdicts) + facts(told, **about, attempt=attempt.statement())


def _record(path: Path) -> dict[str, Any]:
    from cordon.errors import UserError
    from cordon.files import parse_json

    try:
        held = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(held["plan"], dict):
            raise TypeError("its plan is none")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the record of a run ({error}). Give its federation.json.") from error
    return dict(held)


@click.group(cls=Group, short_help="Check the certificate that came with a model.")
def certificate() -> None:
    """Read the certificate that came with a model."""


@certificate.command(verdict="holds", short_help="See whether a certificate holds for a model.")
@click.argument("certificate_file", metavar="CERTIFICATE", type=EXISTING)
@click.option("--model", "model_file", required=True, type=EXISTING, help="The model that it came with.")
@click.option(
    "--key",
    type=KEY,
    metavar="KEY",
    help="Who certified it: 64 hexadecimal digits or a file.  [default: as the model says]",
)
def verify(certificate_file: str, model_file: str, key: str | None) -> Facts:
    """Whether CERTIFICATE holds for a model: exit status 0, or 8 and why not."""
    from cordon.auditing.certificate import verify as verified
    from cordon.model.released import load

    content = verified(Path(certificate_file), load(Path(model_file)), key=key)
    return Facts({"certificate": certificate_file, "content": content}, _told(certificate_file, content))


def _told(path: str, content: dict[str, Any]) -> Iterator[str]:
    from cordon.auditing.reviewer_questions import counted, groups, stated, strength
    from cordon.ledger.provenance import Verdict
    from cordon.privacy.guarantee import RUN, Guarantee
    from cordon.privacy.several_sites import told

    said = content["guarantee"]
    yield f"{path}: holds for model {content['model']['hash']}, issued {content['issued']}"
    yield f"guarantee: {stated(said)}, by {said['accountant']}, as the model states it"
    for scope, of, lasting in (("over all runs", "", "lifetime"), ("in this run alone", "run_", "run")):
        rdp, pld = said[f"{of}epsilon_rdp"], said[f"{of}epsilon_pld"]
        mechanism, composed = said[f"{lasting}_mechanism"], said.get(f"{lasting}_scope", RUN)
        means = Guarantee(said["unit"], said["delta"], mechanism, composed)
        yield f"{scope}: {means.by_both(rdp, pld)}"
    yield f"counted: {counted(said)}"
    if more := told(said.get("at_more_sites", ())):
        yield f"at several sites: {more}"
    for risk in content["risks"]:
        yield f"decisions: {strength(risk)}"
        yield f"groups: {groups(risk)}"
    yield f"signed by: {content['public_key']}, ledger of {content['ledger']['rows']} rows"
    for check in content["checks"]:
        most = f"; {check['most']}" if check["most"] else ""
        yield f"{check['name']}: {check['verdict']}; {check['reason']}{most}"
    for site in content["trained_by"]:
        yield f"trained by {site['statement']}"
    audit = content["audit"]
    yield (
        f"audit: attempt {audit['attempt']}, {audit['trainings']} trainings for each attack at confidence "
        f"{100 * audit['confidence']['attacks']:g} %, by code {audit['code'][:12]}"
    )
    for earlier in audit["earlier"]:
        failed = [name for name, verdict in (earlier["verdicts"] or {}).items() if verdict == Verdict.FAILED]
        ended = f"{', '.join(failed)} failed" if failed else "nothing failed"
        yield f"audit: attempt {earlier['attempt']}: {ended if earlier['verdicts'] else 'it did not end'}"
    for assumption in content["trust"]:
        yield f"trust: {assumption}"
