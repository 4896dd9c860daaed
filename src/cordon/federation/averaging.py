"""How accepted updates become one: a weighted mean, or a rule that bears some dishonest sites.

The rules are Flower's own. Each but the mean counts every site the same, whatever its declared weight, and
holds only while there are enough sites for the number of dishonest ones (``malicious_sites``): see RULES.
Under strong noise they cost accuracy, since a mean evens noise out and they leave some updates out; Krum
keeps one site's alone. Outliers are quarantined before any of them (`cordon.federation.aggregator.outliers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cordon.errors import UserError
from cordon.model.architectures import Parameters

if TYPE_CHECKING:
    from flwr.app import RecordDict
    from flwr.serverapp.strategy import FedAvg

MEAN = "mean"


@dataclass(frozen=True)
class Rule:
    """A rule's assumption: with m dishonest sites it needs ``per_malicious`` m + ``more`` in a round."""

    per_malicious: int
    more: int
    source: str

    def least_sites(self, malicious: int) -> int:
        return self.per_malicious * malicious + self.more


RULES = {
    MEAN: Rule(0, 1, "no defence of its own"),
    "trimmed_mean": Rule(2, 1, "Yin et al. 2018, arXiv:1803.01498"),
    "median": Rule(2, 1, "Yin et al. 2018, arXiv:1803.01498"),
    "krum": Rule(2, 3, "Blanchard et al. 2017, arXiv:1703.02757"),
    "multi_krum": Rule(2, 3, "Blanchard et al. 2017, arXiv:1703.02757"),
    "bulyan": Rule(4, 3, "El Mhamdi et al. 2018, arXiv:1802.07927"),
}


def check_rule(name: str, malicious: int, sites: int) -> None:
    """UserError where ``sites`` are too few for the rule to bear ``malicious`` dishonest ones."""
    if name not in RULES:
        raise UserError(f"no aggregation is called {name!r}. Choose one of: {', '.join(RULES)}.")
    least = RULES[name].least_sites(malicious)
    if sites < least:
        able = [other for other, rule in RULES.items() if rule.least_sites(malicious) <= sites]
        raise UserError(
            f"{name} bears {malicious} dishonest sites among {least} or more ({RULES[name].source}), and "
            f"there are {sites}. Use --aggregation {' or '.join(able)}, or a lower --malicious_sites."
        )


def combine(
    name: str, start: Parameters, updates: Mapping[str, Parameters], weights: Mapping[str, float], *,
    malicious: int = 0,
) -> Parameters:  # fmt: skip
    """``start`` moved by the rule ``name`` over ``updates`` by site; UserError where they are too few for it.

    The order of ``updates`` changes nothing, to the last bit.
    """
    check_rule(name, malicious, len(updates))
    if name == MEAN:
        return average(start, updates, weights)
    strategy = _strategies(malicious, len(updates))[name]()
    replies: list[Any] = [_Accepted(_content(updates[site])) for site in sorted(updates)]
    arrays, _ = strategy.aggregate_train(0, replies)
    assert arrays is not None
    return {
        name: (value.astype(np.float64) + arrays[name].numpy()).astype(np.float32)
        for name, value in start.items()
    }


def average(start: Parameters, updates: Mapping[str, Parameters], weights: Mapping[str, float]) -> Parameters:
    """``start`` moved by the mean of ``updates``, by declared weights of the sites that are in it.

    The order of ``updates`` changes nothing, to the last bit.
    """
    sites = sorted(updates)
    total = sum(weights[site] for site in sites)
    moved: dict[str, Any] = {}
    for name, value in start.items():
        change = sum((weights[site] / total) * updates[site][name].astype(np.float64) for site in sites)
        moved[name] = (value.astype(np.float64) + change).astype(np.float32)
    return moved


def mean_of(models: Collection[Parameters]) -> Parameters:
    """The plain mean of the models after a run's last rounds (Polyak and Juditsky 1992, on rounds).

    It is made of what was released anyway, so it costs no privacy, and evens out the last rounds' noise.
    """
    means: Parameters = {}
    for name in next(iter(models)):
        stacked = np.stack([model[name] for model in models])
        means[name] = np.asarray(stacked.mean(axis=0, dtype=np.float64), dtype=np.float32)
    return means


def _strategies(malicious: int, sites: int) -> dict[str, Callable[[], FedAvg]]:
    from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum

    return {
        # Of n sites int(beta n) are cut at each end: half a site more keeps rounding from cutting one less.
        "trimmed_mean": lambda: FedTrimmedAvg(beta=min((malicious + 0.5) / sites, 0.499)),
        "median": FedMedian,
        "krum": lambda: Krum(num_malicious_nodes=malicious),
        "multi_krum": lambda: MultiKrum(
            num_malicious_nodes=malicious, num_nodes_to_select=max(1, sites - malicious)
        ),
        "bulyan": lambda: Bulyan(num_malicious_nodes=malicious),
    }


@dataclass(frozen=True)
class _Accepted:
    """As much of a message as Flower's strategies read; a real one belongs to a task."""

    content: RecordDict

    def has_error(self) -> bool:
        return False


def _content(update: Parameters) -> RecordDict:
    """An update as Flower's strategies take it; every site counts the same."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    arrays = ArrayRecord({name: Array.from_numpy_ndarray(value) for name, value in update.items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
