"""At a site without a way out: an HTTP proxy on loopback whose connections go through a shared folder.

Run as ``python -m cordon.transport.connect FOLDER OPTIONS``. It connects to one address, for its own user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import click

from cordon.console.commands import command
from cordon.console.progress import Plain
from cordon.errors import Unreachable
from cordon.transport.link import Connection, Link
from cordon.transport.mailbox import TO_RELAY, TO_SITE, BadMailbox, Inbox, Outbox, Session, shared_folder
from cordon.transport.relay import until_signal
from cordon.transport.socket_owner import sender

# A session whose files reach this size (bytes) takes no new connections; another one begins for them.
RENEWED_FROM = 64 * 2**20
# Its old connections are closed when nothing moved for so long (seconds): Flower keeps them between calls.
IDLE = 1.0
# A session that ended at once is followed by another only after a while (seconds).
PAUSE = 1.0
HEAD_BYTES, HEAD_TIME = 8192, 10.0

log = logging.getLogger("cordon.transport")


class ConnectRefused(Exception):
    """A request that gets ``status`` and a reason instead of a connection."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class SharedFolderProxy:
    """Answers CONNECT to ``address`` (HOST:PORT) with a connection through ``folder``."""

    def __init__(self, folder: Path, address: str, name: str) -> None:
        self._folder, self._address, self._name = folder, address, name
        self._link: Link | None = None
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._not_before = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, whatever comes on it."""
        try:
            # Read before it is refused: what stays unread would cost the client the answer.
            head = await _head(reader)
            client, server = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            if sender(client, server) != os.geteuid():
                raise ConnectRefused("403 Forbidden", "this proxy serves its own user")
            self._check(head)
            greeting = b"HTTP/1.1 200 Connection established\r\n\r\n"
            await self._current().open(Connection(reader, writer, greeting))
        except Unreachable as error:
            # Without an answer: a SuperNode tries that again, and ends at a 502.
            log.warning("no connection: %s", error)
        except ConnectRefused as refusal:
            log.warning("refused with %s: %s", refusal.status, refusal)
            body = f"{refusal}\n".encode()
            about = f"Content-Length: {len(body)}\r\nConnection: close"
            writer.write(f"HTTP/1.1 {refusal.status}\r\n{about}\r\n\r\n".encode() + body)
        except OSError as error:
            log.warning("no connection: %s", error.strerror)
        finally:
            writer.close()

    def _check(self, head: bytes) -> None:
        method, _, rest = head.decode("latin-1").partition(" ")
        target = rest.split(" ", 1)[0]
        if method != "CONNECT":
            raise ConnectRefused("405 Method Not Allowed", "this proxy only takes CONNECT")
        if target.lower() != self._address.lower():
            raise ConnectRefused("403 Forbidden", f"this proxy connects to {self._address} alone")

    def _current(self) -> Link:
        """The session for a new connection."""
        if self._link is None or self._link.ending or self._link.size > RENEWED_FROM:
            if time.monotonic() < self._not_before:
                raise Unreachable("the last session has just ended. Try again.")
            session = Session.begin(shared_folder(self._folder), self._name)
            self._link = Link(Inbox(session.path / TO_SITE), Outbox(session.path / TO_RELAY))
            self._links[self._link] = asyncio.create_task(self._run(self._link, session))
        return self._link

    async def _run(self, link: Link, session: Session) -> None:
        log.warning("session %s begins in %s", session.name, self._folder)
        try:
            why = await link.run()
        except BadMailbox as error:
            why = f"bad mailbox: {error}"
        except OSError as error:
            why = f"its files: {error.strerror}"
        log.warning("session %s ended: %s", session.name, why)
        session.remove()
        del self._links[link]
        self._not_before = time.monotonic() + PAUSE
        if self._link is link:
            self._link = None

    async def tend(self) -> None:
        """End the sessions that grew too large, each when its connections are closed."""
        while True:
            await asyncio.sleep(IDLE)
            for link in list(self._links):
                if link.size > RENEWED_FROM:
                    link.close_idle(IDLE)
                    if not link.connections:
                        self._link = None if self._link is link else self._link
                        link.end()

    async def end(self) -> None:
        """End all sessions, and let the other end know."""
        for link in self._links:
            link.end()
        await asyncio.gather(*self._links.values(), return_exceptions=True)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(HEAD_TIME):
            return await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ConnectRefused("400 Bad Request", "no request") from None


@command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--address", required=True, help="The one host:port that it connects to.")
@click.option("--name", required=True, help="The sessions' name in the folder.")
@click.option(
    "--port_file", required=True, type=click.Path(dir_okay=False), help="Its port, once it listens."
)
def main(folder: Path, address: str, name: str, port_file: str) -> None:
    """Carry connections through FOLDER until a signal ends it."""
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    shared_folder(folder)

    async def run() -> None:
        proxy = SharedFolderProxy(folder, address, name)
        tending = asyncio.create_task(proxy.tend())
        server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0, limit=HEAD_BYTES)
        unfinished = Path(f"{port_file}.part")
        unfinished.write_text(str(server.sockets[0].getsockname()[1]))
        unfinished.rename(port_file)
        async with server:
            await until_signal()
            tending.cancel()
            await proxy.end()

    asyncio.run(run())


if __name__ == "__main__":
    main()
