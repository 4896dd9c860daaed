"""Processes that begin warm: forked from one that has imported what they take.

A site, its SuperNode and the aggregator's SuperLink and gate take seconds of a processor each to import torch
and Flower, and the tests start a hundred of them. What is forked runs the same command, with its own
arguments, folder, environment and log, and has a process number of its own to be signalled and killed by.
What depends on how a process comes about (its end with its parent's by the kernel, a `sitecustomize`) starts
cold. A warm site says that its code passed its checks, which take seconds of a processor, without making
them: those are for cold ones and for test_self_test.py.

``python warm.py SOCKET`` is the process that forks. Who asks for a process stays connected: it is told the
number, then the exit status, and where it is gone itself the process is told to end, as the kernel does for
children of the product's.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

# Where the process that forks listens; those that it forked ask the same one.
SOCKET = "CORDON_TEST_WARM"
# The network namespace that a process and those that it starts are in, if not the tests' own.
NETWORK = "CORDON_TEST_NETWORK"
CLONE_NEWNET = 0x40000000
# What a site, a SuperNode, a SuperLink and a gate take.
TAKEN = (
    "cordon.auditing.self_test", "cordon.federation.gate.app", "cordon.federation.aggregator.service",
    "cordon.federation.site.visit", "cordon.privacy.gradients", "dp_accounting", "flwr.supernode.cli",
    "flwr.supernode.runtime.run_clientapp", "flwr.superlink.cli", "flwr.superlink.grid",
    "flwr.superlink.servicer.control.control_handlers", "opacus", "pandas", "pyarrow.parquet", "torch",
    "uvicorn",
)  # fmt: skip


class Warm:
    """What tests use of `subprocess.Popen`, of a Python command that begins warm."""

    def __init__(
        self, arguments: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str],
        ends_with_us: bool = False,
    ) -> None:  # fmt: skip
        """``arguments`` are those behind ``python``; output is added to ``log``."""
        log.touch()
        path = os.environ.get(SOCKET) or _forker()
        asked = {
            "arguments": [*arguments], "cwd": str(cwd), "log": str(log),
            "environment": {**environment, SOCKET: path}, "ends_with_us": ends_with_us,
        }  # fmt: skip
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(path)
        self._line.sendall(json.dumps(asked).encode() + b"\n")
        self._status: int | None = None
        self.pid = self._hear(None) or 0

    def _hear(self, timeout: float | None) -> int | None:
        """The next number that the process that forks tells, or None where it does not in time."""
        if not select.select([self._line], [], [], timeout)[0]:
            return None
        told = b""
        while not told.endswith(b"\n"):
            if not (more := self._line.recv(64)):
                raise RuntimeError("the process that forks the tests' processes is gone")
            told += more
        return int(told)

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._hear(0)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            self._status = self._hear(timeout)
        if self._status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def as_the_product_starts_it() -> type:
    """`cordon.federation.flower.processes.Process`, but warm."""
    from cordon.federation.flower import processes

    class WarmProcess(processes.Process):
        def __init__(self, command: Sequence[str], home: Path, log: Path, *, proxy: Any = None) -> None:
            home.mkdir(parents=True, exist_ok=True)
            self._log, self._log_begins = log, log.stat().st_size if log.exists() else 0
            self._process: Any = Warm(
                command[1:], cwd=Path.cwd(), log=log, environment=processes.environment(home, proxy),
                ends_with_us=True,
            )  # fmt: skip
            self.pid = self._process.pid

    return WarmProcess


def pass_checks() -> None:
    """A site's checks of its own code find nothing, at once."""
    from cordon.auditing import self_test
    from cordon.auditing.checks import Check

    def found(plan: Any) -> Any:
        return [
            Check.of(name, asked, [], "", most="") for name, (asked, _) in self_test.CHECKS.items()
        ], False

    self_test.examine = found  # type: ignore[assignment]


@cache
def _forker() -> str:
    """The socket of a process that forks, which ends with this one."""
    path = os.path.join(tempfile.mkdtemp(prefix="warm"), "socket")
    subprocess.Popen([sys.executable, __file__, path], stdin=subprocess.PIPE)
    while not os.path.exists(path):
        time.sleep(0.05)
    return path


def _serve(path: str) -> None:
    """Fork processes for whoever connects to ``path``, until standard input ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    watched = selectors.DefaultSelector()
    for place in (sys.stdin, listener):
        watched.register(place, selectors.EVENT_READ, (0, None))
    while True:
        for key, _ in watched.select():
            pid, line = key.data
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                _begin(listener, watched)
            elif line is None:  # who asked for the process is gone
                watched.unregister(key.fileobj)
                os.kill(pid, signal.SIGTERM)
            else:
                watched.unregister(key.fileobj)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if line.fileno() in watched.get_map():
                    watched.unregister(line)
                with suppress(OSError):  # nobody wants to know
                    line.sendall(b"%d\n" % status)
                line.close()


def _begin(listener: socket.socket, watched: selectors.BaseSelector) -> None:
    line, _ = listener.accept()
    with line.makefile("rb") as told:
        asked = json.loads(told.readline())
    pid = os.fork()
    if pid == 0:
        for key in [*watched.get_map().values()]:
            if key.fileobj is not sys.stdin:
                os.close(key.fd)
        line.close()
        _become(**asked)
    line.sendall(b"%d\n" % pid)
    watched.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, line))
    if asked["ends_with_us"]:
        watched.register(line, selectors.EVENT_READ, (pid, None))


def _become(
    arguments: list[str], cwd: str, log: str, environment: dict[str, str], ends_with_us: bool
) -> NoReturn:
    """Be ``python ARGUMENTS``, to its end."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if name := environment.get(NETWORK):
        with open(f"/run/netns/{name}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"no way into the network namespace {name}")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for taken, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(taken, place)
    from cordon.federation.flower import processes

    processes.Process = as_the_product_starts_it()  # type: ignore[misc]
    pass_checks()
    if arguments[0] == "-m":
        # Flower's own programs tell what they do, and a site waits for these words; its sites' are quiet.
        logging.getLogger("flwr").setLevel(logging.INFO)
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    # Flower reads it as it is imported.
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    for module in TAKEN:
        importlib.import_module(module)
    # What is imported stays: a forked process would look through all of it for garbage, and copy its pages.
    gc.freeze()
    _serve(sys.argv[1])
