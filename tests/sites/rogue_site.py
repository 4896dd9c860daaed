"""A site that breaks the rules, for tests: the real command with one of its parts replaced.

python rogue_site.py BEHAVIOUR <options of train_site.py>
"""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np

from cordon.federation import messages
from cordon.federation.site import participate

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "labs")]
from hostile import TRAINING, UPDATES  # noqa: E402  shared with the benchmark of attacks
from warm import pass_checks  # noqa: E402


def declare_little_noise(reply: messages.Reply) -> messages.Reply:
    """Spend far more than the plan, say so, and send an update that would be seen in any average."""
    event = dataclasses.replace(reply.event, noise_multiplier=reply.event.noise_multiplier / 4)
    update = {name: np.full_like(array, 1e6) for name, array in reply.update.items()}
    return dataclasses.replace(reply, event=event, update=update)


BEHAVIOURS = {"little_noise": declare_little_noise}


def main() -> None:
    name = sys.argv.pop(1)
    if name in TRAINING:
        train = participate.train
        participate.train = lambda model, start, units, settings, **rest: train(
            model, start, units, TRAINING[name](settings), **rest
        )
    sent: list[dict[str, np.ndarray]] = []

    def reply(*fields: object) -> messages.Reply:
        honest = messages.Reply(*fields)
        if honest.status != messages.ReplyStatus.TRAINED:
            return honest
        sent.append(honest.update)
        if name in UPDATES:
            return dataclasses.replace(honest, update=UPDATES[name](honest.update, sent[0]))
        return BEHAVIOURS.get(name, lambda same: same)(honest)

    participate.Reply = reply
    pass_checks()  # what it finds out about itself, it keeps to itself
    runpy.run_path(str(ROOT / "bin" / "train_site.py"), run_name="__main__")


if __name__ == "__main__":
    main()
