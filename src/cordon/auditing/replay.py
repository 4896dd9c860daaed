"""A run without the network: the same training, noise, accounting and averaging, on rows that are at hand.

It is what audits attack and benchmarks measure; whatever is wrong in training is as wrong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cordon.federation.averaging import combine, mean_of
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.devices import thread_count
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import descend, train
from cordon.training.units import Units

if TYPE_CHECKING:
    from cordon.training.dpsgd import Gradients


@dataclass(frozen=True)
class Replay:
    """What a run leaves: all that the aggregator sees, and the ``model`` that is released.

    ``models`` holds the parameters that each round started from, and those after the last one
    [rounds + 1]; ``updates`` what each site sent, by round.
    """

    models: list[Parameters]
    updates: list[dict[str, Parameters]]
    model: Parameters


def replay(
    plan: Plan, sites: Mapping[str, Units], declared: Mapping[str, int], start: Parameters, *,
    weights: Mapping[str, float] | None = None, threads: int | None = None,
    gradients: Gradients | None = None,
) -> Replay:  # fmt: skip
    """All rounds of ``plan`` with every site in each, from ``start``.

    ``declared`` patients and ``weights`` (None: equal) are the sites' public declarations. Noise is drawn
    afresh in every call. ``gradients`` plants an audit's own (`cordon.training.dpsgd.descend`).
    """
    models, updates = [start], []
    clips: dict[str, float] = {}
    for _ in range(plan.rounds):
        sent = {}
        for site, units in sites.items():
            settings = plan.settings_for(declared[site])
            carried = clips.get(site) if plan.clipping == "adaptive" else None
            if gradients is None:
                trained = train(plan.model, models[-1], units, settings, clip_norm=carried, threads=threads)
            else:
                with thread_count(threads):
                    trained = descend(
                        plan.model, models[-1], units, settings, Randomness(), clip_norm=carried,
                        gradients=gradients,
                    )  # fmt: skip
            clips[site], sent[site] = trained.clip_norm, trained.update
        shares = weights or dict.fromkeys(sent, 1.0)
        models.append(combine(plan.aggregation, models[-1], sent, shares, malicious=plan.malicious_sites))
        updates.append(sent)
    return Replay(models, updates, mean_of(models[1:][-plan.averaged_rounds :]))
