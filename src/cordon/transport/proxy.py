"""The HTTP proxy that the environment names for outgoing connections."""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from cordon.errors import UserError

# What names a proxy to some client or other, in small letters or capitals.
VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy at ``host:port`` that is asked to CONNECT; ``url`` may hold a password."""

    host: str
    port: int
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def of_environment(cls, host: str) -> Self | None:
        """The proxy for a connection by TLS to ``host``; None where it goes without one.

        HTTPS_PROXY says it, or else ALL_PROXY; NO_PROXY names hosts and domains that go without, and a
        loopback address always does. Raises UserError where what is named is no HTTP proxy.
        """
        named = urllib.request.getproxies()
        given = named.get("https") or named.get("all")
        if not given or _is_loopback(host) or urllib.request.proxy_bypass(host):
            return None
        return cls.at(given)

    @classmethod
    def at(cls, url: str) -> Self:
        """The proxy at http://HOST:PORT, with USER:PASSWORD@ where it asks for them."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            # The whole is not shown: it may hold a password.
            raise UserError(
                f"HTTPS_PROXY names {parts.scheme}://{parts.hostname or ''}, which is no HTTP proxy. Give "
                "http://HOST:PORT; what passes through it is encrypted all the same."
            )
        headers = {}
        if parts.username is not None:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            # RFC 7617, basic authentication.
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
        return cls(parts.hostname, port, parts.geturl(), headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
