"""`cordon plan`: a run's plan, what it costs, and what it may expect, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cordon.console.commands import EXISTING_FOLDER, Facts, command

if TYPE_CHECKING:
    from cordon.federation.plan import Plan, Site

PUBLIC, NONE = "public", "none"
# The public start, and its held-out alleles.
SHIPPED = Path(__file__).resolve().parents[3] / "assets" / "public"


@command(short_help="Plan a run: what it costs, and what it may expect.")
@click.argument("folder", type=EXISTING_FOLDER, required=False)
@click.option("--model", default="mlp", show_default=True, help="Its kind.")
@click.option("--run_epsilon", type=float, help="What this run may cost.  [default: the study's]")
@click.option(
    "--pretrained", default=PUBLIC, show_default=True, help="What it starts from: public, none, or a file."
)
@click.option("--rounds", type=click.IntRange(1), help="Of training.  [default: 5 from a start, else 20]")
@click.option("--sampling_rate", default=0.5, show_default=True, help="Chance of a unit to be in a step.")
@click.option(
    "--max_variants_per_patient",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="The most that a step takes of one patient.",
)
@click.option("--show", is_flag=True, help="Write nothing.")
@click.option("--how_many_patients", is_flag=True, help="Tell what so many patients bring; takes no FOLDER.")
def plan(
    folder: str | None, show: bool, how_many_patients: bool, model: str, pretrained: str,
    run_epsilon: float | None, **settings: Any,
) -> Facts:  # fmt: skip
    """Plan a run of the sites that FOLDER's ledger has enrolled, and write plan.json.

    What was spent before counts. Beside the plan stands what half its epsilon would bring, and all that the
    study allows a run.
    """
    from cordon.errors import BudgetExceeded, UserError

    if how_many_patients:
        return _how_many()
    if folder is None:
        raise UserError("no consortium was named. Give its FOLDER, or --how_many_patients.")
    from cordon.consortium.operator import Operator
    from cordon.federation.planning import make_plan
    from cordon.federation.remaining import accounts, runs_left
    from cordon.model.architectures import ARCHITECTURES
    from cordon.privacy.guarantee import RUN

    operator = Operator(Path(folder))
    study, sites = operator.study, operator.sites()
    if not sites:
        first = f"cordon consortium approve {folder} SITE.request"
        raise UserError(f"{folder}: nobody is enrolled. First: {first}")
    if study.over:
        raise UserError(f"{folder}: {study.over}. Nobody trains by a plan of it. Renew study.toml.")
    if model not in ARCHITECTURES:
        raise UserError(f"--model {model}: is none. Use one of: {', '.join(ARCHITECTURES)}.")
    asked = study.run_epsilon if run_epsilon is None else run_epsilon
    if asked > study.run_epsilon:
        raise UserError(
            f"--run_epsilon {asked:g} is above what study.toml allows a run, {study.run_epsilon:g}. Lower it."
        )
    spent = accounts(sites, [operator.ledger])
    terms = settings | _start(pretrained, model) | {
        "unit": study.unit, "epsilon": study.lifetime_epsilon, "delta": study.delta, "study": study.hash,
        "expires": study.expires,
    }  # fmt: skip
    made = make_plan(sites, spent, terms | {"run_epsilon": asked})
    for warning in made.warnings:
        click.echo(warning, err=True)
    left = runs_left(made.plan, spent)
    could_be = {asked: made.plan}
    for epsilon in {asked / 2, study.run_epsilon} - {asked}:
        with suppress(BudgetExceeded):  # what there is no room for is no choice
            could_be[epsilon] = make_plan(sites, spent, terms | {"run_epsilon": epsilon}).plan
    choices = [_row(could_be[epsilon], sites) for epsilon in sorted(could_be)]
    done = "Nothing was written."
    if not show:
        path = operator.write_plan(made.plan)
        done = f"{path} is written. Next: cordon consortium kit {folder} --address HOST:PORT"
    room = ", ".join(f"{name} {count}" for name, count in left.items())
    return Facts(
        {
            "plan": made.plan.to_dict(),
            "runs_left": left,
            "choices": choices,
            "guarantee": made.plan.guarantee(RUN).to_dict(),
        },
        [
            *made.lines,
            f"what one run could be ({made.plan.guarantee()}; AUROC on a simulated cohort):",
            *map(_told, choices),
            f"runs like this one that there is room for: {room}",
            done,
        ],
    )


def _start(pretrained: str, model: str) -> dict[str, str]:
    """The plan's ``start`` and ``model`` for a public start of that name, or in that file."""
    from cordon.errors import UserError
    from cordon.training.pretrain import public_start

    if pretrained == NONE:
        return {"model": model}
    path = SHIPPED / f"{model}.safetensors" if pretrained == PUBLIC else Path(pretrained)
    if not path.exists():
        raise UserError(f"{path}: no public start. Give --pretrained none, or a file of cordon pretrain.")
    return public_start(path)


def _row(plan: Plan, sites: Sequence[Site]) -> dict[str, Any]:
    """What a plan comes to, in figures."""
    from statistics import median

    from cordon.federation.expected import expected
    from cordon.model.initial_weights import initial_parameters
    from cordon.variants.features import FEATURES

    numbers = sum(value.size for value in initial_parameters(plan.model, len(FEATURES)).values())
    each = int(median(site.declared_patients for site in sites))
    found = expected(bool(plan.start), plan.epsilon, each) if plan.unit == "patient" else None
    return {
        "epsilon": plan.epsilon, "noise_multiplier": plan.noise_multiplier, "rounds": plan.rounds,
        # Both ways, as float32.
        "kilobytes_a_site": round(2 * 4 * numbers * plan.rounds / 1000, 1),
        "auroc": list(found.auroc) if found else None,
    }  # fmt: skip


def _told(row: Mapping[str, Any]) -> str:
    auroc = "not measured for this unit"
    if row["auroc"]:
        middle, least, most = row["auroc"]
        auroc = f"{middle:.3f} ({least:.3f} to {most:.3f})"
    return (
        f"  epsilon {row['epsilon']:.3g}: noise multiplier {row['noise_multiplier']:.3g}, AUROC {auroc}, "
        f"{row['rounds']} rounds, {row['kilobytes_a_site']:g} kB a site"
    )


def _how_many() -> Facts:
    """What accuracy so many patients a site bring, by epsilon and start."""
    from cordon.federation.expected import expected, measured
    from cordon.privacy.guarantee import RUN, Guarantee

    known = measured()
    rows, best = [], known["callers_best"]
    means = Guarantee("patient", known["delta"], known["mechanism"], RUN)
    lines = [
        "AUROC on held-out patients, and false alleles removed where 99 % of the real ones are kept, median "
        f"and range of ten trainings on a simulated cohort of {known['sites']} sites. A caller's best score "
        f"there, {best['name']}, has {best['auroc']:.3f} and {100 * best['removed']:.0f} %. Real data are "
        f"harder: benchmarks/patients.py measures yours. Each epsilon is ({means}).",
    ]
    for row in known["medians_and_ranges"]:
        found = expected(row["start"], row["epsilon"], row["patients"])
        rows.append(row)
        start = "from a public start that fits" if row["start"] else "from nothing"
        lines.append(f"  {start}, epsilon {row['epsilon']:g}: {found}")
    return Facts({"measured": rows, "guarantee": means.to_dict()}, lines)
