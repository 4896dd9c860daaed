"""A SuperNode's signature on its requests, bound to the TLS key of the gate that it speaks to."""

from __future__ import annotations

import http.client
import ssl
from base64 import b64encode
from functools import partial
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from cordon.federation.flower.signatures import BOUND, bound_to
from cordon.transport.proxy import Proxy

CONNECT_TIME = 30.0


def served_key(host: str, port: int, roots: str) -> bytes:
    """The TLS key (SubjectPublicKeyInfo, DER) of the server there, for whom ``roots`` (a file, PEM) vouch.

    Goes through the environment's proxy. httpx.ConnectError where there is none, as for a request.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(roots)
    proxy = Proxy.of_environment(host)
    first = (proxy.host, proxy.port) if proxy else (host, port)
    connection = http.client.HTTPSConnection(*first, timeout=CONNECT_TIME, context=context)
    if proxy:
        connection.set_tunnel(host, port, proxy.headers)
    try:
        connection.connect()
        der = connection.sock.getpeercert(binary_form=True)
    except (OSError, http.client.HTTPException) as error:
        raise httpx.ConnectError(str(error)) from error
    finally:
        connection.close()
    key = x509.load_der_x509_certificate(der or b"").public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class BoundAuth(NodeAuthHttpInterceptor):
    """Flower's interceptor, which signs the server's key and the path as well.

    ``roots`` is the file of the certificates (PEM) that the SuperNode trusts. The key is asked for once, on a
    connection of its own under the same certificate, and again after a refusal: an aggregator that was
    started anew may have another.
    """

    def __init__(
        self, private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey, *, roots: str
    ) -> None:
        super().__init__(private_key, public_key)
        self._roots = roots
        self._spki = b""

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        """Send the request with all signatures."""
        url = context.request.url
        if not self._spki:
            self._spki = served_key(url.host, url.port, self._roots)
        response = super().intercept(context, partial(self._signed, call_next))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._spki = b""
        return response

    def _signed(self, call_next: Any, context: Any) -> Any:
        time = context.request.headers[TIMESTAMP_HEADER]
        signature = sign_message(self._private_key, bound_to(self._spki, context.request.url.path, time))
        add_headers(context.request, {BOUND: b64encode(signature).decode("ascii")})
        return call_next(context)
