"""Processes that end with ours: a SuperLink at the aggregator, a SuperNode at a site, ways between them."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cordon.errors import Unreachable
from cordon.federation.credentials import self_signed, write_private
from cordon.federation.flower.bounds import ANY, Bound
from cordon.federation.flower.tasks import Tasks, until
from cordon.transport.address import split_address
from cordon.transport.mailbox import shared_folder
from cordon.transport.proxy import VARIABLES, Proxy

PR_SET_PDEATHSIG = 1
# Loaded before anything is forked: a fork while another thread loads would wait for its lock for ever.
LIBC = ctypes.CDLL(None)
PYTHON = Path(sys.executable).name
# Ports that are tried: above those that need rights, and so many of them.
LEAST_PORT, PORTS, TRIES = 1024, 20_000, 50
# What a SuperNode's log says of each reply that it has dealt with.
DEALT_WITH = re.compile(rb"Sent successfully|Failed to send message|Ignoring reply message")


def environment(home: Path, proxy: Proxy | None = None) -> dict[str, str]:
    """The environment of every Flower process: no telemetry, no updates, no installs, its own home.

    Whatever it connects to goes through ``proxy``: which connections do, is decided before.
    """
    kept = {name: value for name, value in os.environ.items() if name.lower() not in (*VARIABLES, "no_proxy")}
    return {
        **kept,
        **({"HTTPS_PROXY": proxy.url} if proxy else {}),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that is free, and that no outgoing connection takes before somebody listens there.

    Linux gives those the ports of its local range: this one lies below.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(max(LEAST_PORT, lowest - PORTS), lowest)
    for port in (*(secrets.choice(below) for _ in below[:TRIES]), 0):
        with socket.socket() as listener, suppress(OSError):
            listener.bind((host, port))
            return int(listener.getsockname()[1])
    raise Unreachable(f"cannot listen on {host}. Give an address of this machine, or a port that is free.")


class Process:
    """A command of Flower's or ours that dies with us, its output in ``log``."""

    def __init__(self, command: Sequence[str], home: Path, log: Path, *, proxy: Proxy | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as output:
            self._log_begins = output.tell()
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env=environment(home, proxy),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
            )
        self.pid = self._process.pid

    def exit_status(self) -> int | None:
        return self._process.poll()

    def said(self, words: re.Pattern[bytes]) -> int:
        """How often ``words`` stand in what this process has written to its log."""
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            return len(words.findall(log.read()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process: politely, and after ten seconds for certain."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def end_with_parent(by: int = signal.SIGTERM) -> None:
    """In a process that was forked: it gets the signal ``by`` when whoever forked it ends, however that does.

    A task that is killed outright cannot stop its children: Linux does it.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, by)


def make_secret(path: Path) -> Path:
    """A fresh shared secret at ``path``, for its owner's eyes."""
    write_private(path, secrets.token_hex(32).encode())
    return path


@contextmanager
def superlink(workdir: Path, answers: Bound = ANY) -> Iterator[tuple[Tasks, Path, Process]]:
    """A SuperLink on a free loopback port for this user alone, its certificate, and its process.

    It takes no SuperNode's answer larger than ``answers``.

    Its TLS keeps another user, who might take the port first, from passing for it.
    """
    port = free_port()
    secret = make_secret(workdir / "superexec.secret")
    certificate, key = workdir / "superlink.crt", workdir / "superlink.key"
    public, private = self_signed(["127.0.0.1"])
    certificate.write_bytes(public)
    write_private(key, private)
    command = [
        PYTHON, "-m", "cordon.federation.flower.superlink", str(answers.objects), str(answers.bytes),
        "--host", "127.0.0.1", "--port", str(port),
        "--isolation", "process", "--ssl-ca-certfile", str(certificate), "--ssl-certfile", str(certificate),
        "--ssl-keyfile", str(key), "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
    log = workdir / "superlink.log"
    with Process(command, workdir / "flower", log) as process:
        tasks = Tasks(f"127.0.0.1:{port}", secret, certificate)
        until(
            lambda: _healthy(tasks),
            f"the SuperLink did not start. See {log}.",
            alive=lambda: process.exit_status() is None,
        )
        key.unlink()
        yield tasks, certificate, process


def supernode(
    address: str, certificate: Path, key: Path, workdir: Path, proxy: Proxy | None = None
) -> tuple[Process, Tasks]:
    """Start a SuperNode that connects to ``address``, through ``proxy`` if any; its tasks are ours."""
    secret = make_secret(workdir / "superexec.secret")
    port = free_port()
    command = [
        PYTHON, "-m", "cordon.federation.flower.supernode", "--superlink", address,
        "--root-certificates", str(certificate),
        "--auth-supernode-private-key", str(key), "--isolation", "process", "--host", "127.0.0.1",
        "--port", str(port), "--superexec-auth-secret-file", str(secret), "--max-wait-time", "60",
    ]  # fmt: skip
    process = Process(command, workdir / "flower", workdir / "supernode.log", proxy=proxy)
    tasks = Tasks(f"127.0.0.1:{port}", secret, None)
    tasks.alive = lambda: process.exit_status() is None
    return process, tasks


@contextmanager
def way_out(address: str, folder: Path | None, name: str, workdir: Path) -> Iterator[Proxy | None]:
    """The proxy to ``address``: one that goes through the shared ``folder``, or else the environment's."""
    if folder is None:
        yield Proxy.of_environment(split_address(address)[0])
        return
    shared_folder(folder)
    port, log = workdir / "transport.port", workdir / "transport.log"
    port.unlink(missing_ok=True)
    command = [
        PYTHON, "-m", "cordon.transport.connect", str(folder), "--address", address, "--name", name,
        "--port_file", str(port),
    ]  # fmt: skip
    with Process(command, workdir / "flower", log) as process:
        until(
            port.exists,
            f"nothing can go through {folder}. See {log}.",
            alive=lambda: process.exit_status() is None,
        )
        yield Proxy.at(f"http://127.0.0.1:{port.read_text()}")


@contextmanager
def relay(folder: Path | None, host: str, port: int, tasks: Tasks, workdir: Path) -> Iterator[None]:
    """A relay from the shared ``folder``, if any, to our own gate at ``host:port``; ends with the block."""
    if folder is None:
        yield
        return
    shared_folder(folder)
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host)
    command = [PYTHON, "-m", "cordon.transport.cli", str(folder), "--aggregator", f"{reached}:{port}"]
    with Process(command, workdir / "flower", workdir / "relay.log") as process:
        others_live = tasks.alive
        tasks.alive = lambda: others_live() and process.exit_status() is None
        yield


def _healthy(tasks: Tasks) -> bool:
    import ssl

    import httpx

    assert tasks.certificate is not None
    context = ssl.create_default_context(cadata=tasks.certificate.decode())
    try:
        answer = httpx.get(f"https://{tasks.address}/health", verify=context, timeout=5, trust_env=False)
        return answer.is_success
    except httpx.HTTPError:
        return False
