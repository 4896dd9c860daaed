"""The VM's address, set by the ioctls of netdevice(7): no protocol is spoken, and no packet parsed."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8914, 0x8916, 0x891C
IFF_UP, IFF_RUNNING = 0x1, 0x40
RTF_UP, RTF_GATEWAY = 0x1, 0x2


def sockaddr(address: str) -> bytes:
    """struct sockaddr_in, in 16 bytes."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def request(interface: str, content: bytes) -> bytes:
    """struct ifreq: a name in 16 bytes and a union of 24."""
    return struct.pack("=16s24s", interface.encode(), content)


def route(gateway: str) -> bytes:
    """struct rtentry of the default route over ``gateway``, on a 64-bit machine."""
    anywhere = sockaddr("0.0.0.0")
    return struct.pack(
        "@L16s16s16sHhLPhPLLH0L",
        0, anywhere, sockaddr(gateway), anywhere, RTF_UP | RTF_GATEWAY, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def cards(folder: Path = Path("/sys/class/net")) -> list[str]:
    """The network cards' interfaces."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "lo")


def bring_up(address: ipaddress.IPv4Interface, gateway: str) -> str:
    """Give the loopback its address and the first network card ``address``; the interface's name."""
    interface = next(iter(cards()), None)
    if interface is None:
        raise OSError("there is no network card")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for name, own in (("lo", ipaddress.IPv4Interface("127.0.0.1/8")), (interface, address)):
            fcntl.ioctl(handle, SIOCSIFADDR, request(name, sockaddr(str(own.ip))))
            fcntl.ioctl(handle, SIOCSIFNETMASK, request(name, sockaddr(str(own.netmask))))
            fcntl.ioctl(handle, SIOCSIFFLAGS, request(name, struct.pack("=h", IFF_UP | IFF_RUNNING)))
        if gateway:
            fcntl.ioctl(handle, SIOCADDRT, route(gateway))
    return interface


def host_name(name: str) -> None:
    socket.sethostname(name)
    os.environ["HOSTNAME"] = name
