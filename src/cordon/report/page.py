"""Render the report: one HTML file with its style, figures and scripts inside."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import ROUND_CEILING
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cordon import __version__
from cordon.files import written_beside
from cordon.privacy.guarantee import Guarantee, three_digits
from cordon.privacy.tradeoff import FPR, percent
from cordon.report import facts, risks
from cordon.report.figures import accuracy, calls, names, privacy, strata, vega
from cordon.report.figures import federation as updates
from cordon.report.sources import Sources

# Settings of training: without training in the run they took no effect, and an epsilon would mislead.
TRAINING_ONLY = (
    "epsilon",
    "run_epsilon",
    "accountant",
    "delta",
    "noise_multiplier",
    "clip_norm",
    "rounds",
    "local_steps",
    "sampling_rate",
)


def write_report(sources: Sources, path: Path) -> int:
    """Write the report to ``path``, moved into place once complete; return its size in bytes."""
    content = render(sources).encode()
    with written_beside(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def render(sources: Sources) -> str:
    """The report as HTML."""
    scopes = risks.scopes(sources)
    drawn = _figures(sources, scopes)
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=_number,
        short=vega.short,
        percent=percent,
        rounded_up=lambda value: three_digits(value, ROUND_CEILING),
        display=names.display,
        together=names.together,
        filter_name=calls.filter_name,
        dash=lambda look: " ".join(map(str, look.dash)) or "none",
    )
    federation = sources.federation
    return environment.get_template("page.html").render(
        sources=sources,
        federation=federation,
        evaluation=sources.evaluation,
        callset=sources.callset,
        facts=facts,
        scopes=scopes,
        fpr=FPR,
        figures=drawn,
        specs={name: Markup(vega.as_json(item.spec)) for name, item in drawn.items()},
        svgs={name: Markup(item.svg) for name, item in drawn.items()},
        guarantee=sources.guarantee,
        certified=Guarantee.of(sources.certificate["guarantee"]) if sources.certificate else None,
        meaning=names.beside,
        meanings=names.beside_each,
        epsilon=_epsilon,
        styles=_styles(sources.evaluation),
        strata=strata.groups(sources.evaluation),
        settings=settings(sources),
        css=Markup(_read("style.css")),
        script=Markup(_script() if drawn else ""),
        tabs=Markup(_read("tabs.js")),
        version=__version__,
    )


def settings(sources: Sources) -> list[tuple[str, str]]:
    """The run's parameters in their own order, empty ones left out."""
    rows = []
    for name, value in sources.parameters.items():
        if value in (None, "", [], {}):
            continue
        unused = not sources.plan and name in TRAINING_ONLY
        unused &= not (sources.calibrated_privately and name in ("epsilon", "delta"))
        rows.append((name, "not used: nothing was trained in this run" if unused else str(value)))
    return rows


def _figures(sources: Sources, scopes: Sequence[risks.Scope]) -> dict[str, vega.Figure]:
    made: list[vega.Figure | None] = [privacy.tradeoff(scopes)]
    if sources.federation is not None:
        made += [privacy.epsilon(sources.federation), _utility(sources)]
        made += [updates.norms(sources.federation), updates.floors(sources.federation)]
    if sources.evaluation is not None:
        made += [accuracy.roc(sources.evaluation), accuracy.precision_recall(sources.evaluation)]
        made += [accuracy.sensitivity(sources.evaluation), accuracy.reliability(sources.evaluation)]
        made.append(strata.figure(sources.evaluation))
    if sources.callset is not None:
        made += [calls.overlap(sources.callset), calls.ratios(sources.callset)]
    return {item.name: item for item in made if item is not None}


def _utility(sources: Sources) -> vega.Figure | None:
    """Where the run stands, by what it cost by itself."""
    most, change = facts.spending(sources.federation), facts.improvement(sources.evaluation)
    spent = [(own.run_epsilon_rdp, own.guarantee) for own in sources.spent]
    if most and most.in_run is not None and sources.guarantee is not None:
        spent = [(most.in_run, sources.guarantee)]
    if not spent or sources.federation is None:
        return None
    epsilon, guarantee = max(spent, key=lambda one: one[0])
    patients = int(median(site.declared_patients for site in sources.federation.sites))
    return privacy.utility(guarantee, epsilon, change.after if change else None, patients)


def _styles(evaluation: Mapping[str, Any] | None) -> dict[str, vega.Style]:
    scores = [item["name"] for item in evaluation["scores"]] if evaluation else []
    return {name: names.style(name) for name in scores}


def _number(value: float | int | None, digits: int = 3) -> Markup:
    """A number to read, with the exact one in the markup."""
    if value is None:
        return Markup('<span class="none" title="not defined">–</span>')
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
    return Markup('<data value="{}">{}</data>').format(value, text)


def _epsilon(value: float | None, guarantee: Guarantee, group: int = 0) -> Markup:
    """An epsilon, rounded up, with what it means in its attributes; of a ``group`` of so many units."""
    if value is None:
        return Markup('<span class="none" title="not recorded">–</span>')
    text = three_digits(value, ROUND_CEILING) if math.isfinite(value) else "∞"
    means = asdict(guarantee) | ({"size": group} if group else {})
    attributes = " ".join(
        f'data-{name}="{html.escape(str(said), quote=True)}"' for name, said in means.items()
    )
    kind = "epsilon of-group" if group else "epsilon"
    return Markup(f'<data class="{kind}" value="{value}" {attributes}>{text}</data>')


@cache
def _script() -> str:
    """Vega for the page; a second to make, and the same for both reports."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # A closing tag inside a string would end the script element early.
    return bundle.replace("</script", "<\\/script")


def _read(name: str) -> str:
    return files("cordon.report").joinpath("templates", name).read_text(encoding="utf-8")
