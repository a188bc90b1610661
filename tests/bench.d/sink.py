"""A client that costs next to nothing: bodies are thrown away inside the kernel (MSG_TRUNC)."""

import mmap
import re
import socket
import threading

PIECE_BYTES = 64 << 20
HEAD_BYTES_MAX = 16 << 10


class Sink:
    """One kept connection to a server."""

    def __init__(self, host: str, port: int):
        self.connection = socket.create_connection((host, port), timeout=60)
        # Never written to, so that it takes no memory: the kernel only wants its length.
        self.nowhere = mmap.mmap(-1, PIECE_BYTES)

    def get(self, path: str, first=None, last=None) -> int:
        """GETs a file or a range of it; returns the bytes of its body."""
        wanted = "" if first is None else f"Range: bytes={first}-{last}\r\n"
        self.connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n{wanted}\r\n".encode())
        head = self._head()
        status = int(head.split(b" ", 2)[1])
        if status != (200 if first is None else 206):
            raise RuntimeError(f"GET {path}: {head[:300]!r}")
        length = int(re.search(rb"(?im)^content-length: *(\d+)", head).group(1))
        left = length
        while left:
            read = self.connection.recv_into(self.nowhere, min(left, PIECE_BYTES), socket.MSG_TRUNC)
            if read == 0:
                raise RuntimeError(f"GET {path}: the body ended {left} bytes early")
            left -= read
        return length

    def _head(self) -> bytes:
        peeked = b""
        while b"\r\n\r\n" not in peeked:
            again = self.connection.recv(HEAD_BYTES_MAX, socket.MSG_PEEK)
            if not again or len(again) == HEAD_BYTES_MAX and b"\r\n\r\n" not in again:
                raise RuntimeError(f"no response head: {again[:300]!r}")
            peeked = again
        return self.connection.recv(peeked.index(b"\r\n\r\n") + 4)

    def close(self):
        self.connection.close()


def fetch(server, path: str, size: int, connections: int, passes: int, range_bytes=None) -> int:
    """Fetches a file `passes` times on each of some connections at once; returns all bytes.

    With `range_bytes` each pass is made of ranges, and the connections begin at different ones.
    """

    def plan(number):
        if range_bytes is None:
            return [(None, None)] * passes
        pieces = ranges(size, range_bytes)
        turn = number * len(pieces) // connections
        return (pieces[turn:] + pieces[:turn]) * passes

    return _fetch(server, path, [plan(i) for i in range(connections)], connections * passes * size)


def fetch_divided(server, path: str, size: int, connections: int, range_bytes: int) -> int:
    """Fetches a file once, its ranges dealt out to some connections; returns all bytes."""
    pieces = ranges(size, range_bytes)
    return _fetch(server, path, [pieces[i::connections] for i in range(connections)], size)


def ranges(size: int, range_bytes: int) -> list:
    """(first, last) of the ranges that make up a file."""
    return [(first, min(first + range_bytes, size) - 1) for first in range(0, size, range_bytes)]


def _fetch(server, path: str, plans: list, expected: int) -> int:
    done, wrong = [], []
    begin = threading.Barrier(len(plans))

    def work(plan):
        try:
            sink = Sink(server.host, server.port)
            begin.wait(60)
            done.append(sum(sink.get(path, first, last) for first, last in plan))
            sink.close()
        except Exception as error:
            wrong.append(error)
            begin.abort()

    threads = [threading.Thread(target=work, args=(plan,), daemon=True) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    if sum(done) != expected:
        raise RuntimeError(f"{sum(done)} bytes came, {expected} were asked for")
    return expected
