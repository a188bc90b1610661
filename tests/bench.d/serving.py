"""The gateway's large files against nginx's: warm in whole and in ranges, and cold beside small ones."""

import ctypes
import json
import mmap
import os
import threading
import time

import load
from cairn import Cairn
from folders import file_sha256
from gateway import Gateway
from measure import (
    GB,
    GIB,
    MIB,
    TICKS,
    cpu_seconds,
    fill,
    interleaved,
    median,
    require,
    settle,
    spread,
)
from peers import Nginx
from sink import fetch, fetch_divided

RANGE_BYTES = 64 * MIB
LARGE = "model.safetensors"
SMALL = "config.json"
SMALL_BYTES = 2048


class Ours:
    """A node that serves the same files as the peer; use as a context."""

    def __init__(self, folder, size: int):
        self.root = folder / "root"
        self.root.mkdir()
        fill(self.root / LARGE, size)
        text = json.dumps({"filling": ""})
        text = json.dumps({"filling": "x" * (SMALL_BYTES - len(text))})
        (self.root / SMALL).write_text(text)
        self.cairn = Cairn(folder / "data")

    def __enter__(self):
        self.gateway = self.cairn.up()
        answer = self.cairn.push(self.root, "model")
        self.paths = {
            name: self.gateway.file_path(answer["repo"], "main", name) for name in (LARGE, SMALL)
        }
        for name, path in self.paths.items():
            got = self.gateway.download(path)
            require(got.sha256 == file_sha256(self.root / name), f"{name} comes out wrong")
        self.host, self.port, self.pid = (
            self.gateway.host,
            self.gateway.port,
            self.cairn.process.pid,
        )
        return self

    def __exit__(self, *_):
        self.cairn.close()

    def stored(self):
        """The stored file that holds the large one."""
        size = (self.root / LARGE).stat().st_size
        wanted = file_sha256(self.root / LARGE)
        return next(
            path
            for path in self.cairn.blob_paths()
            if path.stat().st_size == size and file_sha256(path) == wanted
        )


def run(bench, folder):
    """Throughput and the server's CPU seconds a GB, whole and in 64 MiB ranges, 1 and 8 connections."""
    size = bench.size(1 * GIB, 8 * MIB)
    turns = bench.size(8, 1)
    with Ours(folder, size) as ours, Nginx(bench, folder, ours.root) as nginx:
        nginx.paths = {LARGE: f"/{LARGE}", SMALL: f"/{SMALL}"}
        same_bytes(nginx, ours)
        for shape, range_bytes in (("whole", None), ("64 MiB ranges", RANGE_BYTES)):
            for connections in (1, 8):
                compare(bench, ours, nginx, size, shape, range_bytes, connections, turns)


def same_bytes(nginx, ours):
    """The peer serves what we serve."""
    got = Gateway(f"http://{nginx.host}:{nginx.port}").download(nginx.paths[LARGE])
    require(got.sha256 == file_sha256(ours.root / LARGE), "the peer serves other bytes")


def compare(bench, ours, nginx, size, shape, range_bytes, connections, turns):
    """Runs the rounds of one shape of download.

    A single connection on loopback is fast or slow by where the kernel happens to do the receiver's
    half, and stays so while it lasts: a round is made of several turns, each on new connections.
    """
    servers = {"cairn": ours, "nginx": nginx}
    speeds, costs = {"cairn": [], "nginx": []}, {"cairn": [], "nginx": []}
    turns = turns if connections == 1 else max(1, turns // 4)
    for number in range(bench.rounds + 1):
        totals, seconds, cpu = ({"cairn": 0, "nginx": 0} for _ in range(3))
        for _, name, server in interleaved(turns, servers):
            before, start = cpu_seconds(server.pid), time.monotonic()
            totals[name] += fetch(server, server.paths[LARGE], size, connections, 1, range_bytes)
            seconds[name] += time.monotonic() - start
            cpu[name] += cpu_seconds(server.pid) - before
        if number == 0:
            continue  # Warms up.
        for name in servers:
            speeds[name].append(totals[name] / seconds[name] / 1e6)
            costs[name].append(max(cpu[name], 1 / TICKS) / (totals[name] / GB))
    for name in servers:
        bench.say(
            f"{name:<6} {shape}, {connections} conn: {spread(speeds[name], '{:.0f}')} MB/s, "
            f"{spread(costs[name], '{:.3f}')} CPU s/GB"
        )
    title = f"GET {shape}, {connections} conn"
    bench.at_least(f"{title}: throughput / nginx", ratio(speeds), 1.0)
    bench.at_most(f"{title}: CPU s/GB / nginx", ratio(costs), 1.2)


def ratio(values: dict) -> float:
    """Ours over the peer's, round by round, the middle one."""
    return median(
        [ours / peer for ours, peer in zip(values["cairn"], values["nginx"], strict=True)]
    )


def run_cold(bench, folder):
    """Small requests while a large file is read that is not in memory."""
    size = bench.size(1 * GIB, 32 * MIB)
    with Ours(folder, size) as ours, Nginx(bench, folder, ours.root) as nginx:
        nginx.paths = {LARGE: f"/{LARGE}", SMALL: f"/{SMALL}"}
        files = {"cairn": ours.stored(), "nginx": ours.root / LARGE}
        settle()
        slow = {"cairn": [], "nginx": []}
        for number, name, server in interleaved(bench.rounds, {"cairn": ours, "nginx": nginx}):
            slow[name].append(cold_round(bench, name, server, files[name], size))
        bench.at_most("cold file beside small requests: p99", median(slow["cairn"]), 100, " ms")


def cold_round(bench, name, server, path, size) -> float:
    """Reads the evicted file again and again for as long as the small requests run; their p99, in ms."""
    seconds = bench.size(3, 1)
    reads, resident, ended, wrong = [], [], threading.Event(), []

    def read_cold():
        try:
            while not ended.is_set():
                evict(path)
                resident.append(resident_bytes(path))
                start = time.monotonic()
                fetch_divided(server, server.paths[LARGE], size, 4, RANGE_BYTES)
                reads.append(size / (time.monotonic() - start) / 1e6)
        except Exception as error:
            wrong.append(error)

    reader = threading.Thread(target=read_cold)
    reader.start()
    try:
        got = load.get(bench, server, server.paths[SMALL], connections=8, seconds=seconds)
    finally:
        ended.set()
        reader.join()
    if wrong:
        raise wrong[0]
    bench.say(
        f"{name:<6} cold: {len(reads)} reads at {spread(reads, '{:.0f}')} MB/s, in memory before "
        f"{max(resident) / MIB:.0f} MiB; beside it {got.rate:.0f} requests/s, p99 {got.p99_ms:.1f} ms"
    )
    require(max(resident) < size / 4, "the file could not be evicted: this measures nothing cold")
    return got.p99_ms


def evict(path):
    """Drops a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident_bytes(path) -> int:
    """Bytes of a file that are in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (len(mapped) + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.c_char.from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        code = libc.mincore(
            ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(len(mapped)), found
        )
        error = ctypes.get_errno()
        del address
        require(code == 0, f"mincore: {os.strerror(error)}")
        return sum(page & 1 for page in bytes(found)) * mmap.PAGESIZE
