"""Two nodes on loopback: what moves between them, how fast, and what it costs.

The peer is iroh-blobs with its own file stores at both ends, over the same loopback: same file, same
durability, in turns.
"""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

from cairn import Cairn, REPOSITORY_ROOT, resident_bytes, wait_for
from measure import GB, GIB, MIB, check, cpu_seconds, fill, interleaved, median, renew, require
from measure import settle, sized, spread

TRANSFER_BYTES = GIB
MEMORY_BYTES = 4 * GIB
SMALL_FILES = 5_000
SMALL_BYTES = 4096
FIRST_BYTES_ASKED = 20
FIRST_FILE_BYTES = 64 * MIB
NODES = 8
HEADS = 5


def peer_program() -> Path:
    """The program that runs iroh-blobs with its own stores."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY_ROOT / "target")
    program = target / "release" / "examples" / "iroh_blobs_peer"
    require(
        program.exists(),
        f"{program} is missing: cargo build --release -p cairn-node --example iroh_blobs_peer",
    )
    return program


class Pair:
    """Two nodes that know each other; use as a context."""

    def __init__(self, folder: Path):
        self.source = Cairn(folder / "source")
        self.sink = Cairn(folder / "sink", peers=[self.source])
        # Else a disk that others have nearly filled leaves no room for what is fetched.
        self.sink.environment["CAIRN_CACHE_SIZE"] = "64GiB"

    def __enter__(self):
        self.source.up()
        self.sink.up()
        wait_for(lambda: self.sink.json("peers")["peers"], 20, "the nodes are connected")
        return self

    def __exit__(self, *_):
        self.sink.close()
        self.source.close()

    def publish(self, folder: Path, name: str) -> str:
        """Publishes on the one, and waits until the other lists it; the repository's id."""
        pushed = self.source.push(folder, name)
        path = f"/api/models/{pushed['repo']}/revision/{pushed['commit']}"
        wait_for(lambda: self.sink.gateway.get(path).status == 200, 20, f"{path} is shown")
        return pushed["repo"]

    def cpu(self) -> float:
        """CPU seconds of both nodes so far."""
        return cpu_seconds(self.source.process.pid) + cpu_seconds(self.sink.process.pid)


def run(bench, folder: Path):
    """A large file to disk: throughput and CPU seconds of both ends, against iroh-blobs.

    Each round of either has new stores, which are removed after it: what one leaves on the disk and in the
    page cache is not the other's to pay for.
    """
    size = bench.size(TRANSFER_BYTES, 16 * MIB)
    source = folder / "model"
    source.mkdir()
    file = source / "model.bin"
    fill(file, size)
    seconds, cpu = {"ours": [], "peer": []}, {"ours": [], "peer": []}
    calls = {"ours": lambda: fetch_by_ours(folder, source), "peer": lambda: fetch_by_peer(folder, file)}
    # The first round warms the machine up, and is not counted.
    for number, name, call in interleaved(bench.rounds + 1, calls):
        taken, used = call()
        bench.say(f"{name}: {size / taken / GB:.3f} GB/s, {used * GB / size:.2f} cpu-s/GB")
        if number > 0 or bench.small:
            seconds[name].append(taken)
            cpu[name].append(used)
    bench.say(f"seconds: ours {spread(seconds['ours'])}, iroh-blobs {spread(seconds['peer'])}")
    ratio = median(seconds["peer"]) / median(seconds["ours"])
    bench.at_least(f"node to node, {sized(size)}: throughput", ratio, 1.3)
    ratio = median(cpu["ours"]) / median(cpu["peer"])
    bench.at_most(f"node to node, {sized(size)}: CPU", ratio, 0.75)


def fetch_by_ours(folder: Path, source: Path):
    """Seconds, and CPU seconds of both ends, of a folder's file through two nodes."""
    stores = folder / "ours"
    stores.mkdir()
    size = sum(path.stat().st_size for path in source.iterdir())
    try:
        with Pair(stores) as pair:
            repo = pair.publish(source, "model")
            settle(warm=2 * size, folder=folder)
            before, begin = pair.cpu(), time.monotonic()
            pulled = pair.sink.json("pull", repo)
            taken, used = time.monotonic() - begin, pair.cpu() - before
            require(pulled["fetched_bytes"] >= size, f"the file crossed the wire: {pulled}")
            return taken, used
    finally:
        check(["rm", "-rf", stores])


def fetch_by_peer(folder: Path, file: Path):
    """Seconds, and CPU seconds of both ends, of the same file through iroh-blobs."""
    program = peer_program()
    stores = folder / "peer"
    stores.mkdir()
    serving = subprocess.Popen(
        [program, "serve", stores / "source", file], stdout=subprocess.PIPE, text=True
    )
    try:
        hash_, id_, address = serving.stdout.readline().split()
        settle(warm=2 * file.stat().st_size, folder=folder)
        before = cpu_seconds(serving.pid)
        children = os.times()
        printed = check([program, "get", stores / "sink", hash_, id_, address])
        after = os.times()
        used = cpu_seconds(serving.pid) - before
        used += after.children_user - children.children_user
        used += after.children_system - children.children_system
        return float(printed), used
    finally:
        serving.kill()
        serving.wait()
        check(["rm", "-rf", stores])


def run_remote(bench, folder: Path):
    """What a client of the second node's gateway sees of a file that it must fetch."""
    size = bench.size(TRANSFER_BYTES, 16 * MIB)
    source = folder / "model"
    source.mkdir()
    # Not safetensors: of those the gateway fetches the header as soon as somebody asks for the repository.
    file = source / "model.bin"
    # Smaller ones first, of which each round leaves one in both stores.
    fill(file, bench.size(FIRST_FILE_BYTES, 16 * MIB))
    firsts, through, pulled = [], [], []
    with Pair(folder) as pair:
        for _ in range(bench.size(FIRST_BYTES_ASKED, 2)):
            renew(file)
            repo = pair.publish(source, "first")
            path = pair.sink.gateway.file_path(repo, "main", "model.bin")
            firsts.append(first_byte(pair.sink.gateway, path))
        fill(file, size)

        def by_gateway():
            connection = pair.sink.gateway.connect(seconds=120)
            repo = pair.publish(source, "through")
            path = pair.sink.gateway.file_path(repo, "main", "model.bin")
            settle(warm=2 * size, folder=folder)
            begin = time.monotonic()
            connection.request("GET", path)
            response, got = connection.getresponse(), 0
            buffer = bytearray(MIB)
            while count := response.readinto(buffer):
                got += count
            connection.close()
            require(got == size, f"{got} of {size} bytes")
            through.append(time.monotonic() - begin)

        def by_pull():
            repo = pair.publish(source, "pulled")
            settle(warm=2 * size, folder=folder)
            begin = time.monotonic()
            pair.sink.json("pull", repo)
            pulled.append(time.monotonic() - begin)

        calls = {"gateway": by_gateway, "pull": by_pull}
        for _, name, call in interleaved(bench.rounds, calls):
            renew(file)
            call()
    bench.say(f"first byte: {spread(firsts, '{:.4f}')} s")
    bench.say(f"seconds: gateway {spread(through)}, pull {spread(pulled)}")
    bench.at_most("first byte of a remote file", median(firsts) * 1000, 50, " ms")
    ratio = median(pulled) / median(through)
    bench.at_least(f"GET of a remote {sized(size)} / pull", ratio, 0.8)


def first_byte(gateway, path: str) -> float:
    """Seconds from the request to the first byte of the body; the rest is not read."""
    connection = gateway.connect()
    begin = time.monotonic()
    connection.request("GET", path)
    response = connection.getresponse()
    require(response.status == 200 and response.read(1), f"{path}: {response.status}")
    taken = time.monotonic() - begin
    connection.close()
    return taken


def run_spread(bench, folder: Path):
    """A head published on one of eight nodes, until the other seven list it."""
    nodes = []
    try:
        for number in range(NODES):
            # A line with a chord each: no node knows all the others.
            peers = [nodes[at] for at in {number - 1, number // 2} if 0 <= at < number]
            nodes.append(Cairn(folder / f"n{number}", peers=peers))
            nodes[-1].up()
        for node in nodes:
            wait_for(lambda node=node: node.json("peers")["peers"], 20, "each node has a peer")
        seconds = []
        for number in range(bench.size(HEADS, 1)):
            source = folder / f"model-{number}"
            source.mkdir()
            (source / "config.json").write_text("{}\n")
            (source / "README.md").write_text(f"# {number}\n")
            heard = [None] * len(nodes)
            stop = threading.Event()
            begin = [None]

            def watch(at, name, heard=heard, stop=stop):
                connection = nodes[at].gateway.connect()
                while not stop.is_set():
                    answer = nodes[at].gateway.get("/api/models?limit=1000", connection=connection)
                    if any(item["id"].endswith(f"/{name}") for item in answer.json()):
                        heard[at] = time.monotonic()
                        return
                    time.sleep(0.01)

            threads = [
                threading.Thread(target=watch, args=(at, f"spread-{number}"))
                for at in range(1, len(nodes))
            ]
            for thread in threads:
                thread.start()
            begin = time.monotonic()
            nodes[0].push(source, f"spread-{number}")
            published = time.monotonic()
            for thread in threads:
                thread.join(30)
            stop.set()
            require(all(heard[1:]), f"every node lists it: {heard}")
            # From the push's answer: what it took by itself is not the spread's.
            seconds.append(max(heard[1:]) - min(published, max(heard[1:])))
            bench.say(f"{seconds[-1]:.3f} s ({max(heard[1:]) - begin:.3f} s with the push itself)")
        bench.at_most("a head, listed by 7 other nodes", max(seconds), 1, " s")
    finally:
        for node in nodes:
            node.close()


def run_small_files(bench, folder: Path):
    """Many small files, pulled."""
    count = bench.size(SMALL_FILES, 100)
    source = folder / "many"
    for number in range(count):
        path = source / f"{number // 100:03}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL_BYTES))
    with Pair(folder) as pair:
        repo = pair.publish(source, "many")
        settle()
        begin = time.monotonic()
        pulled = pair.sink.json("pull", repo)
        taken = time.monotonic() - begin
        require(pulled["files"] >= count, f"all files came: {pulled}")
    bench.at_most(f"{count} files of 4 KiB, pulled", taken, 10, " s")


def run_memory(bench, folder: Path):
    """Resident memory of both nodes while a large file moves."""
    size = bench.size(MEMORY_BYTES, 16 * MIB)
    source = folder / "model"
    source.mkdir()
    fill(source / "model.safetensors", size)
    with Pair(folder) as pair:
        repo = pair.publish(source, "model")
        peaks = {"source": 0, "sink": 0}
        stop = threading.Event()

        def watch():
            while not stop.wait(0.02):
                for name, node in (("source", pair.source), ("sink", pair.sink)):
                    peaks[name] = max(peaks[name], resident_bytes(node.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        pair.sink.json("pull", repo, seconds=600)
        stop.set()
        watcher.join()
    for name, peak in peaks.items():
        bench.at_most(f"memory of the {name}, {sized(size)}", peak / MIB, 256, " MiB")


def run_simulation(bench, folder: Path):
    """1,000 virtual nodes under loss: time until all have a head, and messages a node."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY_ROOT / "target")
    program = target / "release" / "cairn-simulations"
    require(program.exists(), f"{program} is missing: cargo build --release -p cairn-simulations")
    nodes = bench.size(1_000, 100)
    printed = check([program, "spread", "--nodes", str(nodes), "--loss", "0.02", "--seed", "1"])
    for line in printed.splitlines():
        bench.say(line)
    everyone = float(re.search(r"100 %\D*([\d.]+)\s*s", printed).group(1))
    messages = float(re.search(r"messages a node in \d+ s\s*([\d.]+)", printed).group(1))
    bench.at_most(f"simulated: a head to all of {nodes}", everyone, 3, " s")
    bench.at_most(f"simulated: messages a node, {nodes}", messages, 12)
