"""Addresses of servers: without their secrets, and in different spellings."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_CREDENTIALS = re.compile(r"(?<=//)[^/?#]*@")
# A password with `/`, `?` or `#` makes an address invalid → the last `@` ends the password.
_CREDENTIALS_OF_INVALID_ADDRESS = re.compile(r"(?<=//).*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)

_DEFAULT_PORTS = {"http": 80, "https": 443}

# Names of the machine itself. Another address of 127.0.0.0/8 may be another server.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def public_address(address: str) -> str:
    """Return an address without user, password, query and fragment; an invalid address too."""
    try:
        # Reading the port checks the port.
        credentials = _CREDENTIALS if urlsplit(address).port != 0 else _CREDENTIALS_OF_INVALID_ADDRESS
    except ValueError:
        credentials = _CREDENTIALS_OF_INVALID_ADDRESS
    return _QUERY.sub("", credentials.sub("", address))


def server_key(base_url: str) -> str:
    """Return a text that is equal for two addresses if they surely name the same server.

    Capitals of scheme and host, a default port, slashes that are doubled or at the end, a dot behind the host, a user
    and a password make no difference, and neither do the names of the machine itself. `http` and `https` differ.

    Args:
        base_url: an address, which may be no valid URL.
    """
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError:
        # A bracket is not closed, or the port is no number → only an equal text is the same server.
        return base_url
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    host = "localhost" if host in _LOOPBACK else host
    port_text = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    path = re.sub("/+", "/", f"/{parts.path}/")
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{host}{port_text}{path}{query}"


def is_loopback(base_url: str) -> bool:
    """Return whether an address names a server of this machine, such as the sandbox."""
    try:
        host = urlsplit(base_url.strip()).hostname or ""
    except ValueError:
        return False
    return host.rstrip(".") in _LOOPBACK


def is_same_server(base_url: str, other: str) -> bool:
    """Return whether two addresses surely name the same server."""
    return base_url == other or server_key(base_url) == server_key(other)
