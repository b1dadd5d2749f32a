"""Addresses of servers without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_CREDENTIALS = re.compile(r"(?<=//)[^/?#]*@")
# A password with `/`, `?` or `#` makes an address invalid → the last `@` ends the password.
_CREDENTIALS_OF_INVALID_ADDRESS = re.compile(r"(?<=//).*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)


def public_address(address: str) -> str:
    """Return an address without user, password, query and fragment; an invalid address too."""
    try:
        # Reading the port checks the port.
        credentials = _CREDENTIALS if urlsplit(address).port != 0 else _CREDENTIALS_OF_INVALID_ADDRESS
    except ValueError:
        credentials = _CREDENTIALS_OF_INVALID_ADDRESS
    return _QUERY.sub("", credentials.sub("", address))
