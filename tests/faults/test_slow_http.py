"""Slow clients: those that never finish a request, and those that hardly read the answer."""

import contextlib
import os
import resource
import selectors
import socket
import threading
import time

import pytest

from cairn import Memory, resident_bytes, wait_for
from folders import MIB, sample
from raw_http import Healthy

HEADER_SECONDS = 10
BODY_IDLE_SECONDS = 30
LARGE = "weights-00.safetensors"


@pytest.fixture(autouse=True)
def many_descriptors():
    """Room for thousands of sockets in this process; the node inherits the same limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def served(cairn, folder, rng):
    """A running node with one large file and one small one."""
    gateway = cairn.up()
    answer = cairn.push(sample(folder / "source", rng, large=(256 * MIB,)), "model")
    gateway.small = gateway.file_path(answer["repo"], "main", "config.json")
    gateway.large = gateway.file_path(answer["repo"], "main", LARGE)
    assert gateway.get(gateway.small).status == 200
    return gateway


class Slow:
    """Sockets that each send one more byte of an endless request from time to time."""

    def __init__(self, gateway, count: int, beginning: bytes, rest: bytes, every: float):
        self.sockets = {}
        self.closed_after = []
        self.answers = {}
        self.rest = rest
        self.every = every
        self.start = time.monotonic()
        for number in range(count):
            connection = connect(gateway)
            connection.sendall(beginning)
            self.sockets[connection] = number
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with selectors.DefaultSelector() as selector:
            for connection in self.sockets:
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ)
            sent, place = time.monotonic(), 0
            while self.sockets and not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    self._read(selector, key.fileobj)
                if time.monotonic() - sent >= self.every:
                    sent, place = time.monotonic(), place + 1
                    byte = self.rest[place % len(self.rest)].to_bytes(1)
                    for connection in list(self.sockets):
                        with contextlib.suppress(OSError):
                            connection.send(byte)

    def _read(self, selector, connection):
        try:
            alive = connection.recv(4096)
            self.answers.setdefault(self.sockets[connection], alive[:12])
        except BlockingIOError:
            return
        except OSError:
            alive = b""
        if not alive:
            self.closed_after.append(time.monotonic() - self.start)
            selector.unregister(connection)
            connection.close()
            del self.sockets[connection]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        for connection in self.sockets:
            connection.close()


def connect(gateway, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect((gateway.host, gateway.port))
    return connection


REQUESTS = {
    "request line": (b"G", b"ET /aaaaaaaaaaaaaaaa"),
    "headers": (b"GET /healthz HTTP/1.1\r\nHost: here\r\n", b"X-Slow: aaaaaaaaaaaa\r\n"),
    "nothing sent at all": (b"", b""),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_slow_senders_are_closed_and_do_no_harm(cairn, served, long, what):
    count = 2000 if long else 500
    beginning, rest = REQUESTS[what]
    with (
        Memory(cairn.process.pid) as memory,
        Healthy(served, served.small) as healthy,
        Slow(served, count, beginning, rest or b"\x00", 2 if rest else 1e9) as slow,
    ):
        seconds = HEADER_SECONDS + 5
        wait_for(lambda: not slow.sockets, seconds, f"all {count} are closed")
    print(f"closed after {min(slow.closed_after):.1f} to {max(slow.closed_after):.1f} s")
    print(f"memory grew by {memory.growth / MIB:.1f} MiB to {memory.peak / MIB:.1f} MiB")
    healthy.check()
    assert memory.peak < 300 * MIB
    assert memory.growth < (96 if long else 48) * MIB


def test_slow_bodies_are_given_up_and_do_no_harm(cairn, served, long):
    """A request's body that stays away: idle for 30 s ends it with 408, then the connection ends."""
    count = 500 if long else 200
    head = (
        b"POST /api/models/any/any/paths-info/main HTTP/1.1\r\nHost: here\r\n"
        b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
    )
    seconds = BODY_IDLE_SECONDS + 10
    with (
        Memory(cairn.process.pid) as memory,
        Healthy(served, served.small) as healthy,
        Slow(served, count, head, b" ", 1e9) as slow,
    ):
        if long:
            wait_for(lambda: len(slow.answers) == count, seconds, "all are answered or closed")
            assert set(slow.answers.values()) <= {b"HTTP/1.1 408", b""}, slow.answers
            wait_for(lambda: not slow.sockets, seconds, "all are closed")
        else:
            wait_for(lambda: len(healthy.seconds) >= 500, 60, "others are served beside them")
    healthy.check()
    assert memory.peak < 300 * MIB and memory.growth < 48 * MIB


def test_slow_readers_do_no_harm(cairn, served, long):
    """Readers of 1 KB/s: bounded memory, others are served well, and nobody is cut off for being slow."""
    count = 500 if long else 200
    request = f"GET {served.large} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
    with Memory(cairn.process.pid) as memory, Healthy(served, served.small) as healthy:
        readers = [connect(served, receive_buffer=8192) for _ in range(count)]
        for reader in readers:
            reader.sendall(request)
        for _ in range(15 if long else 8):
            second = time.monotonic() + 1
            for reader in readers:
                assert reader.recv(1024), "a slow reader was cut off"
            threading.Event().wait(max(0, second - time.monotonic()))
    for reader in readers:
        reader.close()
    print(f"memory grew by {memory.growth / MIB:.1f} MiB to {memory.peak / MIB:.1f} MiB")
    healthy.check()
    assert memory.peak < 300 * MIB and memory.growth < 64 * MIB


def test_readers_that_stop_reading_are_dropped_and_leave_nothing(cairn, served, long):
    count = 500 if long else 100
    before = open_files(cairn)
    readers = [connect(served, receive_buffer=8192) for _ in range(count)]
    for reader in readers:
        reader.sendall(f"GET {served.large} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    with Healthy(served, served.small) as healthy:
        wait_for(lambda: open_files(cairn) > before + count // 2, 5, "the readers are connected")
        if long:
            wait_for(
                lambda: open_files(cairn) <= before + 20,
                BODY_IDLE_SECONDS + 15,
                f"readers that read nothing for {BODY_IDLE_SECONDS} s are dropped",
            )
        wait_for(lambda: len(healthy.seconds) >= 50, 20, "others are served beside them")
        for reader in readers:
            reader.close()
        wait_for(lambda: open_files(cairn) <= before + 20, 10, "the readers' files are closed")
    healthy.check()


def open_files(cairn) -> int:
    return len(os.listdir(f"/proc/{cairn.process.pid}/fd"))


def test_connections_opened_and_dropped_leave_nothing(cairn, served, long):
    """Many short and broken connections: descriptors and memory return to where they were."""

    def churn(times):
        for number in range(times):
            connection = connect(served)
            if number % 3:
                connection.sendall(f"GET {served.large} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            if number % 3 == 2:
                connection.recv(1000)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

    churn(300)
    files, memory = open_files(cairn), resident_bytes(cairn.process.pid)
    churn(5000 if long else 1000)
    wait_for(lambda: open_files(cairn) <= files + 20, 10, "descriptors are closed")
    grown = resident_bytes(cairn.process.pid) - memory
    assert grown < 16 * MIB, f"memory grew by {grown / MIB:.1f} MiB"


def test_more_connections_than_descriptors(cairn, folder, rng):
    """The accept loop survives running out of descriptors and serves again when there are some."""
    cairn.prefix = ["prlimit", "--nofile=128:128"]
    gateway = cairn.up()
    answer = cairn.push(sample(folder / "source", rng), "model")
    path = gateway.file_path(answer["repo"], "main", "config.json")
    crowd = []
    for _ in range(300):
        connection = socket.socket()
        connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            connection.connect((gateway.host, gateway.port))
        crowd.append(connection)
    assert cairn.process.poll() is None, cairn.logged()
    for connection in crowd:
        connection.close()
    wait_for(lambda: answered(gateway, path), 10, "the gateway answers again")
    assert "panicked" not in cairn.logged()


def answered(gateway, path) -> bool:
    try:
        return gateway.get(path).status == 200
    except OSError:
        return False
