"""Who is at the other end of a connection within this machine."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

TABLE = Path("/proc/net/tcp")
ESTABLISHED = "01"


def sender(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user id at the ``client`` end of a connection within this machine; None where there is none.

    The kernel's table of connections says it (proc_net_tcp, Linux). A socket that its process has closed
    is shown there as the superuser's, without an inode: such a sender counts as nobody.
    """
    try:
        ends = [_end(*client), _end(*server)]
    except OSError:
        return None
    with TABLE.open() as table:
        for row in map(str.split, table):
            if row[1:3] == ends and row[3] == ESTABLISHED and row[9] != "0":
                return int(row[7])
    return None


def _end(host: str, port: int) -> str:
    address = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return f"{address:08X}:{port:04X}"
