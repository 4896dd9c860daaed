"""An HTTP proxy that passes connections on where it was told who asks."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

USER, PASSWORD = "site north", "p@ss:word"


GIVEN = "site%20north:p%40ss%3Aword"


class ConnectProxy:
    """A CONNECT proxy on loopback, in a thread; it counts what is asked of it and what passes."""

    def __init__(self, credentials: str = "") -> None:
        self.asked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.known: dict[str, str] = {}
        self.moved = 0
        words = base64.b64encode(credentials.encode()).decode()
        self._expected = f"proxy-authorization: basic {words}".lower() if credentials else ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target = head.split(" ")[:2]
            if method != "CONNECT":
                self.refused[f"{method} {target}"] += 1
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            elif self._expected and self._expected not in head.lower().split("\r\n"):
                self.refused[target] += 1
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            else:
                self.asked[target] += 1
                host, _, port = target.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(self.known.get(host, host), int(port))
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(self._move(reader, far_writer), self._move(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(65536):
                self.moved += len(content)
                writer.write(content)
                await writer.drain()
        finally:
            writer.close()

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its port, as long as the block lasts."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
