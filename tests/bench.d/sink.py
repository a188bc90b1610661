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
    done, wrong = [], []
    begin = threading.Barrier(connections + 1)

    def work(number):
        try:
            sink = Sink(server.host, server.port)
            begin.wait()
            total = 0
            for _ in range(passes):
                if range_bytes is None:
                    total += sink.get(path)
                    continue
                starts = list(range(0, size, range_bytes))
                turn = number * len(starts) // connections
                for start in starts[turn:] + starts[:turn]:
                    total += sink.get(path, start, min(start + range_bytes, size) - 1)
            sink.close()
            done.append(total)
        except Exception as error:
            wrong.append(error)
            begin.abort()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(connections)]
    for thread in threads:
        thread.start()
    try:
        begin.wait()
    except threading.BrokenBarrierError:
        pass
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    if sum(done) != connections * passes * size:
        raise RuntimeError(f"{sum(done)} bytes came, {connections * passes * size} were asked for")
    return sum(done)
