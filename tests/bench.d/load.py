"""Load from wrk (GET) and ab (HEAD: wrk waits for a body that HEAD answers don't have)."""

import re
from dataclasses import dataclass

from measure import check, require

MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass
class Load:
    """What a load program measured."""

    rate: float
    p99_ms: float


def get(bench, server, path: str, connections=64, seconds=3) -> Load:
    """GETs by wrk, all kept alive."""
    threads = min(2, connections)
    url = f"http://{server.host}:{server.port}{path}"
    text = check(
        [bench.tool("wrk"), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", url],
        timeout=seconds + 60,
    )
    require("Non-2xx" not in text and "Socket errors" not in text, text)
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text).groups()
    return Load(
        float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        float(number) * MILLISECONDS[unit],
    )


def head(bench, server, path: str, count: int, connections=64) -> Load:
    """HEADs by ab, all kept alive."""
    url = f"http://{server.host}:{server.port}{path}"
    text = check(
        [bench.tool("ab"), "-q", "-i", "-k", "-c", str(connections), "-n", str(count), url],
        timeout=300,
    )
    failed = int(re.search(r"Failed requests:\s+(\d+)", text).group(1))
    kept = int(re.search(r"Keep-Alive requests:\s+(\d+)", text).group(1))
    require("Non-2xx" not in text and failed == 0, text)
    require(kept >= count * 0.9, f"only {kept} of {count} requests were kept alive\n{text}")
    return Load(
        float(re.search(r"Requests per second:\s+([\d.]+)", text).group(1)),
        float(re.search(r"99%\s+(\d+)", text).group(1)),
    )
