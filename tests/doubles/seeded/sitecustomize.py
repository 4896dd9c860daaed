"""A TEST DOUBLE for PYTHONPATH: one CORDON_TEST_SEED, one model, bit for bit. NOTHING IS PRIVATE.

Python imports this file at its start. What it changes, where that seed is set:
- a site's noise and sampling in a round follow from the seed, the site's name (``--site``), the round's
  number and its start, and from nothing else: not from the process, the machine, or how often the site was
  started (two rounds may have one start, and the same noise in both would be a replayed update);
- a run is called after the seed, so that two runs need two state folders;
- pseudonyms, which order a site's patients, follow from the seed;
- of a site's self-test the check that finds this out is made, once, and the site goes on all the same; an
  audit lets out a model that was so made: its certificate names it, and does not hold.
Keys, ledgers and audits stay as they are.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

SEED = os.environ.get("CORDON_TEST_SEED", "")
# The round that the site was last asked for.
ASKED = {"round": 0}


def site() -> str:
    """What the command line names as ``--site``; empty where it does not."""
    words = [word for argument in sys.argv for word in argument.split("=", 1)]
    return words[words.index("--site") + 1] if "--site" in words[:-1] else ""


def stream(*parts: bytes) -> Callable[[int], bytes]:
    """An endless stream of bytes that follows from the seed and ``parts``."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = hashlib.sha256(b"\0".join([SEED.encode(), *parts])).digest()
    flow = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return lambda size: flow.update(bytes(size))


def training(module: Any) -> None:
    if not site():
        return
    descend, randomness = module.descend, module.Randomness

    def seeded(architecture: str, start: Any, units: Any, settings: Any, _random: Any, **others: Any) -> Any:
        content = b"".join(name.encode() + value.tobytes() for name, value in sorted(start.items()))
        source = stream(site().encode(), str(ASKED["round"]).encode(), hashlib.sha256(content).digest())
        return descend(architecture, start, units, settings, randomness(source), **others)

    module.descend = seeded
    print(f"TEST ONLY: noise and sampling of {site()} come of a seed. NOTHING IS PRIVATE.", file=sys.stderr)


def messages(module: Any) -> None:
    read = module.Task.from_records

    def remembered(records: Any) -> Any:
        task = read(records)
        ASKED["round"] = task.round
        return task

    module.Task.from_records = staticmethod(remembered)


def plan(module: Any) -> None:
    module.Plan.started = lambda self: replace(self, run=f"seeded-{SEED}")


def pseudonyms(module: Any) -> None:
    size = module._BYTES
    salt = stream(b"pseudonyms")(size).hex()
    module.secrets = SimpleNamespace(token_hex=lambda n: salt if n == size else secrets.token_hex(n))
    print("TEST ONLY: pseudonyms come of a seed. NOTHING IS PRIVATE.", file=sys.stderr)


def self_test(module: Any) -> None:
    module.refuse = lambda found, reasons: None
    module.CHECKS = {"noise": module.CHECKS["noise"]}
    module.confirmed = lambda check: check()


def certificate(module: Any) -> None:
    refuse = module.refuse_failed
    module.refuse_failed = lambda checks: refuse([check for check in checks if check.name != "training"])


CHANGES: dict[str, Callable[[Any], None]] = {
    "cordon.training.dpsgd": training,
    "cordon.federation.messages": messages,
    "cordon.federation.plan": plan,
    "cordon.ledger.pseudonyms": pseudonyms,
    "cordon.auditing.self_test": self_test,
    "cordon.auditing.certificate": certificate,
}


class Changing:
    """Finds the modules of CHANGES, and changes each once it is loaded."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in CHANGES else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            CHANGES[name](module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


if SEED:
    sys.meta_path.insert(0, Changing)  # type: ignore[arg-type]
