"""The report's statements in plain words, each derived from the run's files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.several_sites import at_more_sites, told
from cordon.report.figures.names import beside, display
from cordon.report.risks import Scope
from cordon.report.sources import Federation, OwnSpending, SiteOutcome, Sources
from cordon.scoring.calibration import Calibration

NUMERALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Improvement:
    """AUROC of the best caller's score (before) and of Cordon (after)."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Exclusion:
    """One thing that kept a site's updates out, with its reason; ``rounds`` in words."""

    site: str
    what: str
    rounds: str
    reason: str


@dataclass(frozen=True)
class Part:
    """One site's part in the run: decision -> rounds in words, and the bytes that it sent."""

    site: SiteOutcome
    rounds: Mapping[str, str]
    bytes: int


@dataclass(frozen=True)
class Line:
    """One sentence of the summary, and the tab that tells more."""

    what: str
    said: str
    tab: str = ""
    link: str = ""


@dataclass(frozen=True)
class Spending:
    """The largest epsilon that any site spent over all runs (quarantined ones are told apart).

    ``in_run`` is the largest of this run alone, by RDP; None where no site's is recorded.
    """

    site: str
    rdp: float
    pld: float
    in_run: float | None


def improvement(evaluation: Mapping[str, Any] | None) -> Improvement | None:
    """Cordon against the best score of any caller; None when either is not defined."""
    if evaluation is None:
        return None
    known = {item["name"]: item["auroc"] for item in evaluation["scores"] if item["auroc"] is not None}
    after = known.pop("cordon", None)
    if after is None or not known:
        return None
    best = max(known, key=lambda name: known[name])
    return Improvement(display(best), known[best], after)


def spending(federation: Federation | None) -> Spending | None:
    """What the site that spent most has spent; quarantined sites are told apart in the decisions."""
    sites = [site for site in federation.sites if site.epsilon_rdp is not None] if federation else []
    sites = [site for site in sites if site.status != "quarantined"] or sites
    if not sites:
        return None
    most = max(sites, key=lambda site: site.epsilon_rdp or 0.0)
    rdp = float(most.epsilon_rdp or 0.0)
    pld = rdp if most.epsilon_pld is None else float(most.epsilon_pld)
    in_run = [site.run_epsilon_rdp for site in sites if site.run_epsilon_rdp is not None]
    return Spending(most.site, rdp, pld, max(in_run, default=None))


def several(sources: Sources) -> str:
    """What a person at more sites than were counted comes to; empty where no events are known."""
    guarantee = sources.guarantee
    if guarantee is None:
        return ""
    found: Sequence[Mapping[str, Any]] = ()
    most = spending(sources.federation)
    if sources.certificate is not None:
        found = sources.certificate["guarantee"].get("at_more_sites", ())
    elif sources.ledger is not None and most is not None:
        own = [event for event in sources.ledger.events if event.site == most.site]
        charged = [event.event for event in own for _ in range(event.rounds)]
        found = at_more_sites(charged, replace(guarantee, mechanism=mechanism_of(charged), scope=""))
    elif sources.spent:
        found = max(sources.spent, key=lambda own: own.epsilon_rdp).at_more_sites
    return told(found)


def by_scope(scopes: Sequence[Scope]) -> dict[str, Guarantee]:
    """What an epsilon of each scope means."""
    return {scope.name: scope.guarantee for scope in scopes}


def own_meanings(spent: Sequence[OwnSpending]) -> dict[str, Guarantee]:
    """What an epsilon of each site's own ledger means, over all runs and in this one."""
    return {
        f"{own.site}, {scope}": means
        for own in spent
        for scope, means in (("over all runs", own.lifetime), ("in this run", own.guarantee))
    }


def decisions(federation: Federation | None) -> list[Exclusion]:
    """Every quarantine, absence and early stop; equal reasons of one site in several rounds are one row."""
    if federation is None:
        return []
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for turn in federation.rounds:
        for site in turn.sites:
            if site.decision != "accepted":
                grouped.setdefault((site.site, site.decision, site.reason), []).append(turn.round)
    rows = [
        Exclusion(site, what, spans(numbers), reason) for (site, what, reason), numbers in grouped.items()
    ]
    told = {(row.site, row.what) for row in rows} | {(row.site, row.reason) for row in rows}
    rows += [
        Exclusion(site.site, site.status, "whole run", site.reason)
        for site in federation.sites
        if site.status != "finished" and not {(site.site, site.status), (site.site, site.reason)} & told
    ]
    return rows


def parts(federation: Federation) -> list[Part]:
    """What each site did, in the order of outcomes."""
    found = []
    for outcome in federation.sites:
        rounds: dict[str, list[int]] = {"accepted": [], "missing": [], "quarantined": []}
        sent = 0
        for turn in federation.rounds:
            for site in turn.sites:
                if site.site == outcome.site:
                    rounds.setdefault(site.decision, []).append(turn.round)
                    sent += site.bytes
        found.append(Part(outcome, {name: spans(numbers) for name, numbers in rounds.items()}, sent))
    return found


def received(federation: Federation) -> int:
    """Bytes of all updates that reached the aggregator."""
    return sum(site.bytes for turn in federation.rounds for site in turn.sites)


def plainly(sources: Sources) -> list[Line]:
    """The run in a few sentences for whoever reads no further."""
    federation, change = sources.federation, improvement(sources.evaluation)
    lines = []
    if federation is not None:
        lines += [_trained(sources, len(federation.sites)), _quarantined(federation)]
    elif sources.spent:
        lines.append(_trained(sources, len(sources.spent)))
    if sources.certificate is not None:
        said = f"and of the checks {verdicts(sources.certificate)}. A signed certificate says so."
        lines.append(Line("The model was attacked before it left,", said, "audit", "The audit"))
    elif sources.plan:
        lines.append(Line("The model was not audited,", "so it has no certificate.", "audit", "The audit"))
    if change is not None and sources.evaluation is not None:
        lines.append(_told(change, sources.evaluation))
    return lines + list(_calibrated(sources.calibrations))


def _calibrated(calibrations: Sequence[Calibration]) -> Iterator[Line]:
    """Whose figures the scored VCFs hold, in the calibrations' three modes."""
    private = [item for item in calibrations if item.cost]
    exact = [item.site for item in calibrations if item.fitted and not item.cost]
    others = [item.site for item in calibrations if not item.calibrated]
    for item in calibrations:
        if (stands := item.instead) is not None:
            said = f"{stands.stands_for_the_model}. Scored VCFs there are filtered by {stands.caller_score}."
            yield Line("Do not use this model there:", said, "thresholds", "The thresholds")
    if exact:
        said = (
            f"of {joined(exact)}'s labelled samples: slope, intercept and threshold are not private. Keep "
            "these files at the site, or score with --calibration private or none."
        )
        yield Line("The scored VCFs hold exact figures", said, "thresholds", "The thresholds")
    for item in private:
        said = f"of {item.site}'s labelled samples, at {item.stated}, which its ledger holds."
        yield Line("The scored VCFs hold private figures", said, "thresholds", "The thresholds")
    if others:
        said = f"for {joined(others)}: the filter's threshold promises no share of the real alleles."
        yield Line("Scores are the model's own", said, "thresholds", "The thresholds")


def _trained(sources: Sources, sites: int) -> Line:
    said = (
        f"of kind {sources.plan.get('model', 'unknown')}, on patients of {words(sites, 'site')}"
        f"{'' if sources.federation else ' here and of others elsewhere'}. Reads, genotypes and exact counts "
        "stayed there; updates with noise in them were averaged."
    )
    tab = "federation" if sources.federation else "privacy"
    return Line("A model was trained,", said, tab, "The rounds" if sources.federation else "What it cost")


def _quarantined(federation: Federation) -> Line:
    names = sorted({row.site for row in decisions(federation) if row.what == "quarantined"})
    if not names:
        return Line("Nothing was quarantined", "in any round.", "decisions", "The decisions")
    said = f"of {', '.join(names)}; none of it is in the model."
    return Line("Updates were quarantined", said, "decisions", "The decisions")


def _told(change: Improvement, evaluation: Mapping[str, Any]) -> Line:
    """What the held-out samples say, by Cordon's own filter where there is one."""
    kept = {row["name"]: row for row in evaluation["filters"]}
    said = f"area under the ROC curve {change.before:.3f} with {change.name}, {change.after:.3f} with Cordon."
    if {"no filter", "cordon"} <= kept.keys():
        before, after = kept["no filter"], kept["cordon"]
        said += (
            f" Its filter removed {before['false_kept'] - after['false_kept']:,} of {before['false_kept']:,} "
            f"false alleles and kept {after['true_kept']:,} of {before['true_kept']:,} real ones."
        )
    return Line("On samples that no site trained on:", said, "variants", "The curves")


def headline(sources: Sources) -> str:
    """The one sentence at the top."""
    federation, change = sources.federation, improvement(sources.evaluation)
    trained = ""
    if federation is not None:
        heard = {
            site.site for turn in federation.rounds for site in turn.sites if site.decision == "accepted"
        }
        rounds = words(len(federation.rounds), "round")
        trained = f"{words(len(heard), 'site')} trained one model in {rounds}"
        trained = trained[0].upper() + trained[1:]
    elif sources.spent:
        trained = f"{' and '.join(own.site for own in sources.spent)} trained one model with other sites"
    if change is None:
        return f"{trained}." if trained else "Candidate alleles were scored with a released model."
    verdict = f"better than {change.name}"
    if round(change.after, 3) == round(change.before, 3):
        verdict = f"no better than {change.name}"
    elif change.after < change.before:
        verdict = f"worse than {change.name}"
    # What a site would otherwise find out by its patients.
    advice = "" if change.after >= change.before else f" Do not use this filter here: sort by {change.name}."
    if trained:
        return f"{trained}; it tells real alleles from false ones {verdict} does.{advice}"
    return f"A released model tells real alleles from false ones {verdict} does.{advice}"


def outcome(federation: Federation) -> str:
    """Who finished and who did not, in one sentence, with reasons."""
    finished = [site for site in federation.sites if site.status == "finished"]
    if len(finished) == len(federation.sites):
        return "Every site finished and nothing was quarantined." if not decisions(federation) else (
            "Every site finished, but not every update was taken: see the decisions."
        )  # fmt: skip
    rest = [site for site in federation.sites if site.status != "finished"]
    return f"{len(finished)} of {len(federation.sites)} sites finished. " + " ".join(
        _fate(site, beside(federation.lifetime)) for site in rest
    )


def share(site: SiteOutcome, budget: float) -> float:
    """The part of the budget that a site spent by its RDP accountant, in percent; above 100 when over."""
    return 100.0 * (site.epsilon_rdp or 0.0) / budget if budget > 0 else math.inf


def ceiling(certificate: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The most that any attack on membership may reach, as the certificate has it; None where it has not."""
    figures = [check.get("figures", {}) for check in certificate["checks"] if check["name"] == "membership"]
    return next((held["most"] for held in figures if "most" in held), None)


def attacks(certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Membership inference as the certificate tells it, numbers in words; none where they are private."""
    results = [
        result
        for check in certificate["checks"]
        if check["name"] == "membership"
        for result in check.get("figures", {}).get("results", [])
    ]
    return [
        {
            "attack": result["attack"].replace("_", " "), "view": result["view"],
            "auc": _interval(result["auc"]), "score_confidence": result["confidence"],
            "rates": [
                {"fpr": rate["fpr"], "text": _interval(rate["tpr"]) if rate["tpr"] else "too few others"}
                for rate in result["rates"]
            ],
        }
        for result in results
    ]  # fmt: skip


def verdicts(certificate: Mapping[str, Any]) -> str:
    """How many checks came to which verdict: ``nine passed and one was not able to refute``."""
    said = [check["verdict"] for check in certificate["checks"]]
    parts = []
    for name in dict.fromkeys(said):
        were = "" if name in ("passed", "failed") else "was " if said.count(name) == 1 else "were "
        parts.append(f"{numeral(said.count(name))} {were}{name}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def attempts(certificate: Mapping[str, Any]) -> str:
    """How often the model was audited before."""
    before = len(certificate["audit"]["earlier"])
    return f"The model had been audited {words(before, 'time')} before." if before else ""


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def words(count: int, noun: str) -> str:
    """``3, "site"`` -> ``three sites``."""
    return f"{numeral(count)} {noun}{'' if count == 1 else 's'}"


def numeral(count: int) -> str:
    return NUMERALS[count] if count < len(NUMERALS) else str(count)


def joined(names: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def spans(numbers: Sequence[int]) -> str:
    """``[1, 2, 3, 5]`` -> ``1–3, 5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _fate(site: SiteOutcome, meaning: str) -> str:
    said = {"quarantined": "was quarantined", "missing": "went missing", "stopped": "stopped early"}
    reason = site.reason.rstrip(".")
    if ("ε" in reason or "epsilon" in reason) and not ("δ" in reason or "delta" in reason):
        reason += f" ({meaning})"
    return f"{site.site} {said.get(site.status, site.status)}{f': {reason}' if reason else ''}."
