"""Where there is a way out: moves the bytes of the sessions in a shared folder to and from an aggregator.

It sees TLS alone and holds no key: it can delay or lose what passes, and neither read nor change it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from cordon.console.progress import Say
from cordon.errors import Unreachable, UserError
from cordon.transport.link import SILENCE, Link
from cordon.transport.mailbox import TO_RELAY, TO_SITE, BadMailbox, Inbox, Outbox, Session, shared_folder
from cordon.transport.proxy import Proxy

# Seconds between two looks for new sessions, and between two lines on how much was moved.
LOOK_EVERY, TELL_EVERY = 0.5, 600.0
# So seldom (seconds) is it said that the aggregator cannot be reached: sites try again and again.
TELL_LOSS_EVERY = 60.0
MOST_SESSIONS = 256
THREADS = 32
LOCK = "relay.lock"
HEAD_BYTES = 16384


class Relay:
    """Serves every session in ``folder`` with connections to ``host:port``, and to nothing else."""

    def __init__(self, folder: Path, host: str, port: int, say: Say) -> None:
        self._folder, self._host, self._port, self._say = folder, host, port, say
        self._proxy = Proxy.of_environment(host)
        self._running: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._moved = self._told = 0
        self._lost_at = -math.inf

    async def run(self) -> None:
        """Serve until cancelled; the sessions stay, for the next relay to go on with."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        telling = asyncio.create_task(self._tell())
        try:
            while True:
                for session in await asyncio.to_thread(Session.all_in, self._folder):
                    if session.name not in self._running and len(self._running) < MOST_SESSIONS:
                        await self._begin(session)
                await asyncio.sleep(LOOK_EVERY)
        finally:
            tasks = [telling, *(task for _, task in self._running.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def moved(self) -> int:
        """Bytes of all connections so far."""
        return self._moved + sum(link.size for link, _ in self._running.values())

    async def _begin(self, session: Session) -> None:
        try:
            outbox = Outbox(session.path / TO_SITE)
        except OSError:
            session.remove()  # what is left of one that ended
            return
        link = Link(Inbox(session.path / TO_RELAY), outbox, dial=self._dial, silence=SILENCE)
        task = asyncio.create_task(self._serve(session, link))
        self._running[session.name] = link, task

    async def _serve(self, session: Session, link: Link) -> None:
        again = " again" if link.size else ""
        try:
            self._say(f"session {session.name}: served{again}")
            why = await link.run()
        except BadMailbox as error:
            why = f"what is in its folder is not a site's: {error}"
        except FileNotFoundError:
            why = "the site removed it"
        except OSError as error:
            why = f"its folder cannot be used: {error.strerror}"
        except Exception as error:  # one session's end is never the others'
            why = f"{type(error).__name__}: {error}"
        finally:
            self._moved += link.size
            del self._running[session.name]
        session.remove()
        self._say(f"session {session.name}: over, {why}; {link.size} bytes moved")

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the aggregator; OSError or Unreachable where there is none."""
        try:
            if self._proxy is None:
                return await asyncio.open_connection(self._host, self._port)
            return await _tunnel(self._proxy, self._host, self._port)
        except (OSError, Unreachable) as error:
            if time.monotonic() - self._lost_at > TELL_LOSS_EVERY:
                self._lost_at = time.monotonic()
                self._say(f"the aggregator at {self._host}:{self._port} cannot be reached: {error}")
            raise

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            links = [link for link, _ in self._running.values()]
            connections = sum(link.connections for link in links)
            lately = f"{(self.moved - self._told) / 1e6:.1f} MB moved in the last {TELL_EVERY / 60:g} minutes"
            self._say(f"{len(links)} sessions, {connections} connections; {lately}")
            self._told = self.moved


async def _tunnel(proxy: Proxy, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, limit=HEAD_BYTES)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = b"no answer"
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        writer.close()
        raise Unreachable(
            f"the proxy {proxy.host}:{proxy.port} says {status[:100]!r}. Ask its operator to let the "
            "aggregator's address through."
        )
    return reader, writer


async def until_signal() -> None:
    """Return when the process is told to end."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


@contextmanager
def _only_relay(folder: Path) -> Iterator[None]:
    """UserError where another process serves ``folder``, as far as its file system has locks."""
    with (folder / LOCK).open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(f"another relay serves {folder}. One is enough: end it first.") from None
        yield


def serve(folder: Path, host: str, port: int, say: Say) -> int:
    """Serve ``folder`` until a signal ends this process; returns the bytes moved."""
    shared_folder(folder)

    async def run() -> int:
        relay = Relay(folder, host, port, say)
        say(f"serving {folder}: its sessions reach {host}:{port}, and nothing else")
        serving = asyncio.create_task(relay.run())
        told = asyncio.create_task(until_signal())
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        return relay.moved

    os.umask(0o077)
    with _only_relay(folder):
        return asyncio.run(run())
