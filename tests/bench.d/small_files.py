"""HEAD and GET of a 2 KB file, requests per second and p99, beside nginx's static file."""

import load
from measure import MIB, cpu_seconds, interleaved, spread
from peers import Nginx
from serving import LARGE, SMALL, Ours, ratio


def run(bench, folder):
    with Ours(folder, 1 * MIB) as ours, Nginx(bench, folder, ours.root) as nginx:
        nginx.paths = {LARGE: f"/{LARGE}", SMALL: f"/{SMALL}"}
        compare(bench, "GET", ours, nginx, get)
        compare(bench, "HEAD", ours, nginx, head)


def get(bench, server):
    return load.get(bench, server, server.paths[SMALL], seconds=bench.size(3, 1))


def head(bench, server):
    return load.head(bench, server, server.paths[SMALL], count=bench.size(100_000, 2_000))


def compare(bench, method, ours, nginx, act):
    rates, waits, costs = ({"cairn": [], "nginx": []} for _ in range(3))
    for number, name, server in interleaved(bench.rounds + 1, {"cairn": ours, "nginx": nginx}):
        before = cpu_seconds(server.pid)
        got = act(bench, server)
        if number:  # The first round warms up.
            rates[name].append(got.rate)
            waits[name].append(got.p99_ms)
            seconds = bench.size(3, 1) if method == "GET" else bench.size(100_000, 2_000) / got.rate
            costs[name].append((cpu_seconds(server.pid) - before) / (got.rate * seconds) * 1e6)
    for name in rates:
        bench.say(
            f"{name:<6} {method} 2 KB: {spread(rates[name], '{:.0f}')} requests/s, "
            f"p99 {spread(waits[name])} ms, {spread(costs[name])} CPU us/request"
        )
    bench.at_least(f"{method} of 2 KB: requests/s / nginx", ratio(rates), 0.7)
