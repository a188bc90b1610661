"""Import: one large file against hashing and against copying it; a thousand small files."""

import shutil

from cairn import Cairn
from measure import (
    GB,
    GIB,
    MIB,
    check,
    cpu_seconds,
    fill,
    interleaved,
    median,
    renew,
    settle,
    sized,
    spread,
    timed,
)


def run(bench, folder):
    large_file(bench, folder)
    small_files(bench, folder)


def large_file(bench, folder):
    """2 GiB, durable, all new in each round, against the slower of SHA-256 and copy with sync."""
    openssl = bench.tool("openssl")
    size = bench.size(2 * GIB, 16 * MIB)
    source = folder / "source"
    source.mkdir()
    path = source / "model.safetensors"
    fill(path, size)
    copy = folder / "copy"
    cairn = Cairn(folder / "data")
    cpu = []

    def hashed():
        check([openssl, "dgst", "-sha256", str(path)])

    def copied():
        check(["cp", "--reflink=never", str(path), str(copy)])
        check(["sync", str(copy)])

    def pushed():
        cairn.push(source, "model")

    seconds = {"openssl": [], "cp+sync": [], "cairn": []}
    for number, name, act in interleaved(
        bench.rounds, {"openssl": hashed, "cp+sync": copied, "cairn": pushed}
    ):
        renew(path)
        if name == "cairn":
            cairn.up()
            cpu.append(-cpu_seconds(cairn.process.pid))
        settle()
        seconds[name].append(timed(act))
        if name == "cairn":
            cpu[-1] += cpu_seconds(cairn.process.pid)
            cairn.kill()
            shutil.rmtree(cairn.data)
        copy.unlink(missing_ok=True)
        settle()
    for name, taken in seconds.items():
        bench.say(
            f"{name:<8} {size / GB:.2f} GB in {spread(taken)} s = {size / MIB / median(taken):.0f} MiB/s"
        )
    bench.say(f"cairn's node took {spread(cpu)} CPU s = {median(cpu) / (size / GB):.2f} s/GB")
    rounds = zip(seconds["openssl"], seconds["cp+sync"], seconds["cairn"])
    slower = "openssl" if median(seconds["openssl"]) > median(seconds["cp+sync"]) else "cp+sync"
    bench.say(f"the slower one is {slower}")
    ratios = [max(hashing, copying) / ours for hashing, copying, ours in rounds]
    bench.at_least(f"import of {sized(size)} / slower of sha256, cp+sync", median(ratios), 0.8)
    shutil.rmtree(source)


def small_files(bench, folder):
    """1,000 files of 1 KB, durable, in under a second, the command's start included."""
    count = bench.size(1000, 50)
    source = folder / "small"
    for number in range(count):
        path = source / f"part-{number % 10}" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(path, 1000)
    cairn = Cairn(folder / "small-data")
    cairn.up()
    taken = []
    for number in range(bench.rounds):
        for path in source.rglob("*.json"):
            renew(path)
        settle()
        taken.append(timed(lambda: cairn.push(source, f"small-{number}")))
    cairn.close()
    bench.say(f"{count} files of 1 KB in {spread(taken)} s")
    bench.at_most(f"{count} files of 1 KB, durable", median(taken), 1.0, " s")
