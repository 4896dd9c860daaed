"""What one person comes to who is a patient at more sites than the events of one site count.

Sites draw noise and samples of their own, so that what they release of one person composes: a site's events
once for each site (`cordon.privacy.accountants`). The other sites are taken to have released what this
one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from typing import Any

from cordon.privacy.accountants import MOST_FOR_PLD, epsilon_pld, epsilon_rdp
from cordon.privacy.events import MOST_SITES, Event, at_sites
from cordon.privacy.guarantee import Guarantee, three_digits

# How many further sites are told of.
FURTHER = 2


def at_more_sites(events: Sequence[Event], guarantee: Guarantee) -> list[dict[str, Any]]:
    """``sites``, ``epsilon_rdp`` and ``epsilon_pld`` of a person at one site, and at two, more than counted.

    With each stands the ``guarantee``, at whose delta they are. PLD is None above MOST_FOR_PLD; the list is
    empty without ``events``.
    """
    delta = guarantee.delta
    counted = max((event.sites for event in events), default=MOST_SITES)
    found = []
    for sites in range(counted + 1, min(counted + FURTHER, MOST_SITES) + 1):
        own = at_sites(events, sites)
        rdp = epsilon_rdp(own, delta)
        pld = epsilon_pld(own, delta) if rdp <= MOST_FOR_PLD else None
        found.append({"sites": sites, "epsilon_rdp": rdp, "epsilon_pld": pld, **guarantee.to_dict()})
    return found


def told(found: Sequence[Mapping[str, Any]]) -> str:
    """What `at_more_sites` found, in a sentence; empty where it found nothing."""
    if not found:
        return ""
    means = Guarantee.of(found[0])
    counted = found[0]["sites"] - 1
    each = ", ".join(f"at {item['sites']} sites {_epsilons(item)}" for item in found)
    return (
        f"Counted is a person at {'one site' if counted == 1 else f'up to {counted} sites'}. Who takes part "
        f"at more, as one {means.unit} at each and in as many rounds, comes to more: {each} ({means})."
    )


def _epsilons(item: Mapping[str, Any]) -> str:
    rdp, pld = item["epsilon_rdp"], item["epsilon_pld"]
    by_pld = "" if pld is None else f" and {three_digits(pld, ROUND_CEILING)} by PLD"
    return f"epsilon {three_digits(rdp, ROUND_CEILING)} by RDP{by_pld}"
