"""Keeps the clients in this process on loopback: every other connection or look-up is refused.

`datasets` asks a host `datasets-server.<gateway>` for what a viewer computed, and goes on without it;
that look-up is refused like the others. `REFUSED` has what was tried, for a test to look at.
"""

import ipaddress
import os
import socket
import sys

REFUSED: list[str] = []


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guard(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
        # Unix sockets have a path for an address.
        if isinstance(address, tuple) and not _is_loopback(str(address[0])):
            REFUSED.append(str(address[0]))
            raise ConnectionRefusedError(f"tests stay on loopback: {address[0]}")
    elif event == "socket.getaddrinfo":
        host = arguments[0]
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _is_loopback(name):
            REFUSED.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"tests stay on loopback: {name}")


def stay_on_loopback() -> None:
    """Installs the guard for the rest of the process."""
    sys.addaudithook(_guard)
    # Proxies of the machine are not for a node on loopback.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            os.environ.pop(spelling, None)
