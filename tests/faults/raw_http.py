"""HTTP as bytes on a socket: what no well-behaved client library would send."""

import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass

MIB = 1 << 20


@dataclass
class Raw:
    """Everything that came back on a connection."""

    data: bytes
    closed: bool
    seconds: float

    @property
    def statuses(self) -> list:
        """Status codes of all responses, in order."""
        return [
            int(code) for code in re.findall(rb"(?:^|\r\n|[^\r\n])HTTP/1\.[01] (\d{3})", self.data)
        ]

    @property
    def head(self) -> bytes:
        """The first response's head."""
        return self.data.partition(b"\r\n\r\n")[0]

    def header(self, name: str):
        """A header of the first response, or None."""
        found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)", self.head)
        return found and found.group(1).decode("latin-1")

    @property
    def body(self) -> bytes:
        """All after the first head, as it came."""
        return self.data.partition(b"\r\n\r\n")[2]


def exchange(gateway, data, wait=2.0, read_bytes_max=64 * MIB) -> Raw:
    """Sends bytes (or pieces of them) and reads until the other side closes or falls silent.

    `wait` is the silence in seconds after which the connection is taken to stay open.
    """
    pieces = [data] if isinstance(data, bytes) else data
    start = time.monotonic()
    with socket.create_connection((gateway.host, gateway.port), timeout=wait) as connection:
        sender = threading.Thread(target=_send, args=(connection, pieces), daemon=True)
        sender.start()
        received, closed, last = bytearray(), False, start
        while len(received) < read_bytes_max:
            try:
                piece = connection.recv(256 << 10)
            except TimeoutError:
                break
            except ConnectionError:
                closed = True
                break
            last = time.monotonic()
            if not piece:
                closed = True
                break
            received += piece
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    return Raw(bytes(received), closed, last - start)


def _send(connection, pieces):
    with contextlib.suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)


def get(path, *headers: str) -> bytes:
    """A plain GET that closes; `path` may be bytes, which go out as they are."""
    path = path if isinstance(path, bytes) else path.encode()
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    return b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n" + lines + b"\r\n"


class Healthy:
    """A well-behaved client beside the bad ones: small requests, each on a new connection.

    Use as a context; afterwards `check` says whether it was served well.
    """

    def __init__(self, gateway, path: str):
        self.gateway = gateway
        self.path = path
        self.seconds = []
        self.bad = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._ended.wait(0.002):
            start = time.monotonic()
            try:
                answer = self.gateway.get(self.path)
                if answer.status != 200:
                    self.bad.append(f"{answer.status} {answer.body[:200]!r}")
            except OSError as error:
                self.bad.append(repr(error))
            self.seconds.append(time.monotonic() - start)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(60)

    def check(self, p99_seconds=0.5, count=50):
        """Every request was answered with 200, and 99 of 100 fast."""
        assert not self.bad, f"{len(self.bad)} of {len(self.seconds)} failed: {self.bad[0]}"
        assert len(self.seconds) >= count, f"only {len(self.seconds)} requests got through"
        p99 = sorted(self.seconds)[int(len(self.seconds) * 0.99)]
        print(f"healthy client: {len(self.seconds)} requests, p99 {p99 * 1000:.1f} ms")
        assert p99 < p99_seconds, f"p99 {p99 * 1000:.0f} ms"


# Just enough HTTP/2 to misbehave in it.

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def http2_get(stream: int, path: bytes) -> bytes:
    """HEADERS of a whole GET request, without indexing."""
    block = b"\x82\x86" + b"\x04" + bytes([len(path)]) + path + b"\x41\x04here"
    return frame(1, 0x5, stream, block)
