"""Loopback ports: which are free, who holds one, and whether the broker behind one answers.

Free ports are taken from below the range that systems use for outgoing connections. A client that keeps trying a
stopped broker's port inside that range can connect to itself and so take the port away from the broker.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection

HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 10_000, 32_000

#: Metadata request, version 1: api key 3, correlation id 1, no client id, no topics.
_METADATA_REQUEST = struct.pack(">hhihi", 3, 1, 1, -1, 0)


def is_free(port: int) -> bool:
    """Whether a broker could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the broker does: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def find_free(taken: Collection[int]) -> int:
    """A free loopback port that is not in `taken`. Different processes begin their search at different places."""
    width = _HIGHEST - _LOWEST
    first = os.getpid() * 97 % width
    for step in range(width):
        port = _LOWEST + (first + step * 13) % width
        if port not in taken and is_free(port):
            return port
    raise OSError("no free port on loopback")


def holder(port: int) -> str | None:
    """Who listens on the port, as `name (pid 123)`, where the system tells us; None where it doesn't."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})" if connection.pid else None
    except psutil.Error:
        pass
    return None


def listens(servers: str, timeout_s: float = 3.0) -> bool:
    """Whether something takes connections at one of these addresses (`host:port`, separated by commas)."""
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
                return True
        except (OSError, ValueError):
            continue
    return False


def brokers_seen(port: int, timeout_s: float = 1.0) -> int:
    """How many brokers the one on this port knows to be alive, itself included; 0 when it doesn't answer."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST)
            # size, correlation id, number of brokers
            head = b""
            while len(head) < 12:
                part = connection.recv(12 - len(head))
                if not part:
                    return 0
                head += part
    except OSError:
        return 0
    return max(0, int(struct.unpack(">iii", head)[2]))
