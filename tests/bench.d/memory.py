"""Resident memory of a node while a large file is pushed and then downloaded by eight clients."""

from cairn import Cairn, status_bytes
from measure import GIB, MIB, fill, sized
from sink import fetch


def run(bench, folder):
    size = bench.size(4 * GIB, 32 * MIB)
    source = folder / "source"
    source.mkdir()
    fill(source / "model.safetensors", size)
    cairn = Cairn(folder / "data")
    gateway = cairn.up()
    pid = cairn.process.pid
    bench.say(f"after the start: {status_bytes(pid, 'VmHWM') / MIB:.0f} MiB at most")
    answer = cairn.push(source, "model")
    bench.say(f"after the push: {status_bytes(pid, 'VmHWM') / MIB:.0f} MiB at most")
    path = gateway.file_path(answer["repo"], "main", "model.safetensors")
    fetch(gateway, path, size, connections=8, passes=1)
    fetch(gateway, path, size, connections=8, passes=1, range_bytes=64 * MIB)
    peak = status_bytes(pid, "VmHWM") / MIB
    bench.say(f"after the downloads: {peak:.0f} MiB at most")
    cairn.close()
    bench.at_most(f"memory, {sized(size)} pushed and 8 x fetched", peak, 256, " MiB")
