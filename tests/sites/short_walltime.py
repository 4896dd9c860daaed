"""The real command of a site, whose walltime is as good as over after some rounds, however long these take.

python short_walltime.py ROUNDS <options of train_site.py>
"""

import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cordon.federation.site import walltime

ROOT = Path(__file__).resolve().parents[2]


class ShortStay(walltime.Stay):
    rounds = 0

    @contextmanager
    def round(self) -> Iterator[None]:
        with super().round():
            yield
        self.rounds -= 1
        if self.rounds == 0:
            self.ends = time.monotonic() + walltime.RESERVE / 2


if __name__ == "__main__":
    ShortStay.rounds = int(sys.argv.pop(1))
    walltime.Stay = ShortStay
    runpy.run_path(str(ROOT / "bin" / "train_site.py"), run_name="__main__")
