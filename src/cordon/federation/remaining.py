"""What sites were charged before a run is planned, and what that leaves of their budgets.

The noise of a run is public, so it follows from what is public: what the aggregator charged a site's key,
and all rounds of the site's own ledger, whoever took part in them. Who of the site's patients has room for
the run is decided at the site, and told nowhere (`cordon.ledger.site`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cordon.errors import BudgetExceeded, UserError
from cordon.federation.plan import Plan, Site
from cordon.ledger.cohorts import LEDGER_SUFFIX, of_all
from cordon.ledger.hash_chain import Chain, read_private_key
from cordon.ledger.log import head_of, key_path, read_log
from cordon.ledger.rows import Kind
from cordon.ledger.spending import charged
from cordon.privacy.accountants import epsilon_by
from cordon.privacy.events import MECHANISM, Event, at_sites
from cordon.privacy.guarantee import Guarantee

# A site that has less than this share of its budget left has spent it: a calibration that aims at the whole
# leaves about a tenth of that.
LEAST = 1e-3
# More runs than these are not counted.
MOST_RUNS = 1000
# By site, every account of what it was charged: the aggregator's, and its own.
Accounts = dict[str, list[tuple[Event, ...]]]


def ledgers_in(state: Path) -> list[Path]:
    """The ledgers that the pipeline keeps in ``state``, if any: the aggregator's, and the sites'."""
    aggregator = state / "aggregator" / f"ledger{LEDGER_SUFFIX}"
    return [
        *([aggregator] if aggregator.exists() else []),
        *sorted((state / "sites").glob(f"*{LEDGER_SUFFIX}")),
    ]


def accounts(sites: Sequence[Site], ledgers: Sequence[Path]) -> Accounts:
    """What each of ``sites`` was charged, by every ledger; nothing of other sites'.

    UserError where a ledger does not verify.
    """
    found: Accounts = {site.name: [] for site in sites}
    for path in ledgers:
        if not key_path(path).exists():
            raise UserError(f"{path}: its key is not beside it. Plan where the ledger is kept.")
        head_of(path)
        chain, _ = read_log(path, read_private_key(key_path(path)).public_key())
        if held := of_all(chain).reservations:
            if path.stem in found:
                found[path.stem].append(tuple(one.event for one in held))
        else:
            for name, events in _by_site(chain).items():
                if name in found:
                    found[name].append(events)
    return found


def _by_site(chain: Chain) -> dict[str, tuple[Event, ...]]:
    """What an aggregator's ledger charges each site under the key that it is enrolled with now."""
    enrolled = {row["site"]: row["identity"] for row in chain.rows if row["kind"] == Kind.ENROLLED}
    costs = list(charged(chain.rows))
    return {
        name: tuple(event for row, events in costs if row["identity"] == key for event in events)
        for name, key in enrolled.items()
    }


def plan_within(
    spent: Accounts,
    *,
    epsilon: float,
    run_epsilon: float | None = None,
    beside: Sequence[Event] = (),
    **settings: Any,
) -> tuple[Plan, list[str]]:
    """The plan of a run at sites that ``spent`` so much of ``epsilon``, a lifetime's; and who cannot bear it.

    With ``run_epsilon`` the run costs that, and who has no room for all of it takes no part. Without, it
    costs what the site that was charged the most has left. What is to come ``beside`` its rounds, such as a
    calibration, is part of what it costs. BudgetExceeded where nothing is left, or nobody
    has room.
    """
    histories = [events for held in spent.values() for events in held if events]
    if run_epsilon is not None:
        if run_epsilon > epsilon:
            means = Guarantee(settings["unit"], settings["delta"], settings.get("mechanism", MECHANISM))
            raise UserError(
                f"a run of {means.budget(run_epsilon)} is more than what all runs may cost, a "
                f"lifetime's {means.budget(epsilon)}. Give a lower --run_epsilon, or a "
                "higher --epsilon."
            )
        plan = Plan.calibrated(epsilon=run_epsilon, lifetime_epsilon=epsilon, beside=beside, **settings)
        whole = [*plan.events(), *beside]
        unable = [name for name, held in spent.items() if not _fit(plan, held, whole)]
        if len(unable) == len(spent):
            raise BudgetExceeded(
                f"no site has room for a run of {plan.stated()}: {'; '.join(_left(plan, spent))}. Nothing "
                "was spent. Give a lower --run_epsilon, or list sites with other patients."
            )
        return plan, unable
    bare = Plan.calibrated(epsilon=epsilon, lifetime_epsilon=epsilon, beside=beside, **settings)
    if any(_cost(bare, events) > epsilon * (1.0 - LEAST) for events in histories):
        raise BudgetExceeded(
            f"nothing is left for a run: {'; '.join(_left(bare, spent))}. Nothing was spent. Leave out of "
            "the sites sheet who has nothing left, or raise --epsilon."
        )
    if not histories:
        return bare, []
    terms = {"epsilon": epsilon, "lifetime_epsilon": epsilon, **settings}
    return Plan.calibrated(spent=histories, beside=beside, **terms), []


def runs_left(plan: Plan, spent: Accounts) -> dict[str, int]:
    """How many runs like the plan's each site has room for, within what all runs may cost it."""
    found = {}
    for name, held in spent.items():
        count = 0
        while count < MOST_RUNS and _fit(plan, held or [()], plan.events() * (count + 1)):
            count += 1
        found[name] = count
    return found


def _fit(plan: Plan, held: Sequence[tuple[Event, ...]], more: Sequence[Event]) -> bool:
    return all(_cost(plan, [*events, *more]) <= plan.budget for events in held)


def _cost(plan: Plan, events: Sequence[Event]) -> float:
    """Epsilon of ``events`` of somebody who is at as many sites as the plan counts, or they do."""
    sites = max([plan.sites_per_patient, *(event.sites for event in events)])
    return epsilon_by(plan.accountant, at_sites(events, sites), plan.delta)


def _left(plan: Plan, spent: Accounts) -> list[str]:
    """What each site was charged of its lifetime's budget, in words."""
    told = []
    for name, held in spent.items():
        most = max(held, key=lambda events: _cost(plan, events), default=())
        told.append(f"{name} was charged {plan.stated_of(most)}, of a lifetime's {plan.budget:g}")
    return told
