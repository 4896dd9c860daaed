"""Pipeline parameters checked against nextflow_schema.json, all problems at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cordon.errors import Problem

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Json = Mapping[str, Any]


def properties(schema: Json) -> dict[str, Json]:
    """Every parameter of a grouped schema (``$defs`` with ``properties``) by name."""
    return {
        name: rule for group in schema.get("$defs", {}).values() for name, rule in group["properties"].items()
    }


def check_parameters(given: Json, schema: Json) -> tuple[dict[str, Any], list[Problem]]:
    """The parameters typed and with the schema's defaults, and what is wrong with them.

    Command-line values may come as strings; they are read as the type that the schema says. A null is a
    parameter that was not given. A value with a problem is absent from the result.
    """
    # It takes a second to import, and tasks read JSON by `read_json`.
    from jsonschema import Draft202012Validator

    rules = properties(schema)
    values: dict[str, Any] = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    problems: list[Problem] = []
    for name, value in given.items():
        if value is None:
            continue
        if name not in rules:
            near = difflib.get_close_matches(name, rules, n=1)
            remedy = f"Did you mean --{near[0]}?" if near else "Leave it out; --help lists what there is."
            problems.append(Problem(f"--{name}", "is no parameter of this pipeline.", remedy))
            continue
        typed = _typed(value, rules[name].get("type", "string"))
        faults = list(Draft202012Validator(rules[name]).iter_errors(typed))
        if faults:
            values.pop(name, None)
            problems.append(_problem(name, value, rules[name], faults[0]))
        else:
            values[name] = typed
    for name in _required(schema):
        if name not in values and given.get(name) is None:
            problems.append(
                Problem(f"--{name}", "is missing.", f"Give --{name}: {rules[name]['description']}")
            )
    return values, problems


def _typed(value: Any, kind: str) -> Any:
    """The value as ``kind`` where it can be read so, else unchanged for the validator to name."""
    if kind == "string":
        return value if isinstance(value, str | bool) else str(value)
    if kind == "boolean" or isinstance(value, bool):
        # Newer versions of Nextflow hand command-line values over as strings.
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    if not math.isfinite(number):
        return value
    return int(number) if kind == "integer" and number.is_integer() else number


def _problem(name: str, value: Any, rule: Json, fault: ValidationError) -> Problem:
    if "errorMessage" in rule and fault.validator == "pattern":
        what = str(rule["errorMessage"])
    elif fault.validator == "enum":
        what = f"is none of {', '.join(str(option) for option in rule['enum'])}."
    elif fault.validator == "type":
        kinds = {"integer": "is no whole number.", "boolean": "is neither true nor false."}
        what = kinds.get(rule["type"], f"is no {rule['type']}.")
    else:
        what = f"must be {_bounds(rule)}."
    default = f" The default is {rule['default']}." if "default" in rule else ""
    return Problem(f"--{name} {value}", what, f"{rule['description']}{default}")


def combination_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Parameters that are each right but do not go together; ``values`` are typed, with defaults."""
    sarek, site = values.get("from_sarek"), values.get("site")
    if sarek and values.get("input"):
        what = "is given beside --input."
        yield Problem(
            f"--from_sarek {sarek}", what, "Give one of them; a samplesheet can name sarek's files."
        )
    if sarek and not site:
        yield Problem("--site", "is missing.", "Name the hospital whose samples --from_sarek holds.")
    if site and not sarek:
        yield Problem(f"--site {site}", "is given without --from_sarek.", "A samplesheet names its sites.")
    by_resources = values.get("labels") == "resources"
    if by_resources and not values.get("known_sites"):
        yield Problem("--labels resources", "needs known alleles.", "Give VCFs of them as --known_sites.")
    if values.get("known_sites") and not by_resources:
        what = "is given, but labels come from the samples' truth."
        yield Problem("--known_sites", what, "Add --labels resources, or leave it out.")
    if by_resources and values.get("privacy_unit") == "variant":
        what = "looks at all rows of a sample, so that one variant's label depends on others."
        yield Problem("--labels resources", what, "Use --privacy_unit patient.")
    yield from _start_problems(values)
    if values.get("momentum") and values.get("optimiser") == "adam":
        yield Problem(
            f"--momentum {values['momentum']}", "is beside adam, which has its own.", "Leave it out."
        )
    yield from _calibration_problems(values)
    yield from _trust_problems(values)
    yield from _transport_problems(values)
    diploid = [name for name in ("deepvariant", "bcftools") if name in values.get("callers", "").split(",")]
    if values.get("ploidy", 2) != 2 and diploid:
        what = f"is not what {' and '.join(diploid)} can call."
        yield Problem(f"--ploidy {values['ploidy']}", what, "Use --callers haplotypecaller.")


def _start_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """The public start fits the model, and rows that judge it are given only beside it."""
    start, images = values.get("pretrained"), values.get("model") == "pileup_cnn"
    if start == "public" and images:
        what = "does not look at reads, and --model pileup_cnn does."
        yield Problem("--pretrained public", what, "Use --model mlp, or --pretrained none.")
    if values.get("public_variants") and (start == "none" or (images and not start)):
        what = "is given, but there is no public start to compare with."
        yield Problem("--public_variants", what, "Add --pretrained, or leave it out.")


def _calibration_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """What a private calibration costs: less than the budget, of which training takes the rest.

    And how many patients are declared, which its delta is held against.
    """
    cost, budget = values.get("calibration_epsilon", 0), values.get("epsilon", math.inf)
    trains = not values.get("scoring_model")
    if values.get("calibration") == "private" and trains and cost >= budget:
        what = f"leaves nothing of --epsilon {budget:g} to train with."
        yield Problem(f"--calibration_epsilon {cost:g}", what, "Use a smaller one, or --calibration none.")
    declared = values.get("sites") or values.get("simulate_sites")
    if values.get("calibration") == "private" and not trains and not declared:
        what = "needs the patients that each site declares: they bound --delta."
        yield Problem("--calibration private", what, "Give --sites, or use --calibration none.")


def _trust_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """How a site knows the aggregator, and what attests one that the run plays itself."""
    elsewhere, evidence = values.get("aggregator"), values.get("aggregator_evidence")
    policy, certificate = values.get("aggregator_policy"), values.get("aggregator_ca")
    if elsewhere and not values.get("site_key"):
        what = "knows a site by its key, and none is given."
        yield Problem(f"--aggregator {elsewhere}", what, "Give --site_key.")
    if elsewhere and not values.get("plan") and not values.get("scoring_model"):
        what = "could ask for any plan that the budget allows, and none is agreed on."
        yield Problem(
            f"--aggregator {elsewhere}", what, "Give --plan, the plan.json that the sites agreed on."
        )
    if elsewhere and bool(policy) == bool(certificate):
        what = "is to be trusted by two ways." if policy else "is not to be trusted unseen."
        remedy = "Give --aggregator_policy, or --aggregator_ca of an aggregator without attestation."
        yield Problem(f"--aggregator {elsewhere}", what, remedy)
    if evidence and elsewhere:
        what = "is for an aggregator that this run plays, and --aggregator is elsewhere."
        yield Problem(f"--aggregator_evidence {evidence}", what, "Leave it out.")
    if policy and not elsewhere and evidence != "guest":
        what = "is given, and this run's own aggregator shows no evidence that it is for."
        yield Problem(f"--aggregator_policy {policy}", what, "Add --aggregator_evidence guest.")
    if evidence == "guest" and not policy and not elsewhere:
        what = "needs the policy that the sites hold it against."
        yield Problem("--aggregator_evidence guest", what, "Give --aggregator_policy.")


def _transport_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """The folder that connections cross: where there is one, and where the commands can be given it."""
    files, folder = values.get("transport") == "files", values.get("transport_dir")
    if folder and not files:
        what = "is given, and connections do not go through files."
        yield Problem(f"--transport_dir {folder}", what, "Add --transport files, or leave it out.")
    if files and values.get("scoring_model"):
        what = "is given, and with --scoring_model nothing is trained."
        yield Problem("--transport files", what, "Leave one of them out.")
    remote = re.match(r"[a-z][a-z0-9+.-]*://", folder or values.get("state_dir") or "")
    if files and remote:
        what = f"needs a folder of a shared file system, and {remote[0]} is none."
        yield Problem("--transport files", what, "Give such a folder as --transport_dir.")


def _bounds(rule: Json) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    return " and ".join(f"{word} {rule[key]}" for key, word in words.items() if key in rule)


def _required(schema: Json) -> Iterator[str]:
    for group in schema.get("$defs", {}).values():
        yield from group.get("required", ())
