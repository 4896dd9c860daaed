"""For PYTHONPATH, in benchmarks/rounds.py: this process waits as Flower's own SuperNode and clients do."""

from cordon.federation.flower import object_pull, processes

object_pull.awaiting = lambda pull, *_: pull  # type: ignore[assignment]
start = processes.Process.__init__


def started(self, command, *others, **options):  # type: ignore[no-untyped-def]
    """Flower's SuperNode in place of ours."""
    if "cordon.federation.flower.supernode" in command:
        command = ["flower-supernode", *command[3:]]
    start(self, command, *others, **options)


processes.Process.__init__ = started  # type: ignore[method-assign]
