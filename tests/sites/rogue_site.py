"""A site that breaks the rules, for tests: the real command with one of its parts replaced.

python rogue_site.py BEHAVIOUR <options of train_site.py>
"""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np

from cordon.federation import messages, site

BIN = Path(__file__).resolve().parents[2] / "bin"


def declare_little_noise(reply: messages.Reply) -> messages.Reply:
    """Spend far more than the plan, say so, and send an update that would be seen in any average."""
    event = dataclasses.replace(reply.event, noise_multiplier=reply.event.noise_multiplier / 4)
    update = {name: np.full_like(array, 1e6) for name, array in reply.update.items()}
    return dataclasses.replace(reply, event=event, update=update)


def send_nan(reply: messages.Reply) -> messages.Reply:
    """Keep to the plan and send an update that would poison every weight."""
    update = {name: np.full_like(array, np.nan) for name, array in reply.update.items()}
    return dataclasses.replace(reply, update=update)


BEHAVIOURS = {"little_noise": declare_little_noise, "nan": send_nan}


def main() -> None:
    behave = BEHAVIOURS[sys.argv.pop(1)]

    def reply(*fields: object) -> messages.Reply:
        honest = messages.Reply(*fields)
        return behave(honest) if honest.status == messages.TRAINED else honest

    site.Reply = reply
    runpy.run_path(str(BIN / "train_site.py"), run_name="__main__")


if __name__ == "__main__":
    main()
