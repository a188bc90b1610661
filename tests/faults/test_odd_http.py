"""Oversized and odd HTTP: a right refusal or a closed connection, at once, and no memory for it."""

import gzip
import itertools
import json
import random
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from cairn import Cairn, Memory, wait_for
from folders import MIB, sample, write_file
from raw_http import HTTP2_PREFACE, Healthy, exchange, frame, get, http2_get

SENTINEL = b"sentinel-outside-of-every-repository"
LARGE = "weights-00.safetensors"
SMALL = "part/0000.txt"

# Much above the row's 100 ms, since two cores carry client and server; a hang is far above.
SECONDS = 2.0


@pytest.fixture(scope="module")
def served():
    """One node for all cases: what one of them breaks, the next ones show."""
    folder = Path(tempfile.mkdtemp(prefix="cairn-"))
    cairn = Cairn(folder / "data")
    gateway = cairn.up()
    gateway.cairn = cairn
    gateway.source = sample(folder / "source", random.Random(15), large=(1 * MIB,))
    gateway.answer = cairn.push(gateway.source, "model")
    gateway.repo = gateway.answer["repo"]
    for place in (folder, cairn.data, cairn.data / "keys"):
        write_file(place / "sentinel.txt", SENTINEL)
        (place / "sentinel.txt").chmod(0o600)
    yield gateway
    cairn.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def unharmed(request, served):
    """After each case: the node lives, has not grown by more than 16 MiB, and answers."""
    with Memory(served.cairn.process.pid) as memory:
        yield
    assert served.cairn.process.poll() is None, served.cairn.logged()
    assert "panicked" not in served.cairn.logged(), served.cairn.logged()
    assert memory.growth < 16 * MIB, f"memory grew by {memory.growth / MIB:.1f} MiB"
    assert served.get(f"/{served.repo}/resolve/main/config.json").status == 200


def chunked(body: bytes) -> bytes:
    return (
        b"POST /api/models/REPO/paths-info/main HTTP/1.1\r\nHost: here\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    )


def post(headers: bytes, body: bytes) -> bytes:
    return (
        b"POST /api/models/REPO/paths-info/main HTTP/1.1\r\nHost: here\r\n"
        + headers
        + b"\r\n"
        + body
    )


SMUGGLED = b"GET /healthz?smuggled HTTP/1.1\r\nHost: here\r\n\r\n"
CLIENT_ERROR = range(400, 500)

# Both lengths at once: chunked alone counts, or a refusal; in both cases the connection ends.
FRAMED_TWICE = {200, *CLIENT_ERROR}

# Requests as bytes (`REPO` is replaced), the statuses that are right, and whether the connection
# must be closed after it since the framing is in doubt. No status at all (closed) is always right.
# Never more than one answer: what is smuggled behind a request is not another one.
CASES = {
    "header of 1 MB": (get("/healthz", "X-Long: " + "a" * 1_000_000), {400, 413, 414, 431}, True),
    "10,000 headers": (get("/healthz", *[f"X-{i}: {i}" for i in range(10_000)]), {400, 431}, True),
    "200 headers of 4 KB": (
        get("/healthz", *[f"X-{i}: " + "a" * 4096 for i in range(200)]),
        {400, 431},
        True,
    ),
    "URL of 64 KB": (get("/" + "a" * 65_536), {400, 404, 414, 431}, False),
    "URL of 1 MB": (get("/" + "a" * 1_000_000), {400, 414, 431}, True),
    "path of 64 KB in a repository": (
        get("/REPO/resolve/main/" + "a/" * 32_768),
        {400, 404, 414, 431},
        False,
    ),
    "query of 60 KB": (get("/api/models?search=" + "a" * 60_000), {200, 400, 414, 431}, False),
    "10,000 query members": (
        get("/api/models?" + "&".join(["filter=x"] * 5000)),
        {200, 400, 414, 431},
        False,
    ),
    "revision of 60 KB": (
        get("/REPO/resolve/" + "a" * 60_000 + "/config.json"),
        {400, 404, 414, 431},
        False,
    ),
    "chunk size that is none": (chunked(b"zz\r\n{}\r\n0\r\n\r\n"), CLIENT_ERROR, True),
    "negative chunk size": (chunked(b"-2\r\n{}\r\n0\r\n\r\n"), CLIENT_ERROR, True),
    "chunk size over 64 bits": (chunked(b"1" + b"0" * 16 + b"\r\n{}"), CLIENT_ERROR, True),
    "chunk size of 2^63": (chunked(b"8000000000000000\r\n{}"), CLIENT_ERROR, False),
    "endless chunk extension": (
        chunked(b"2;" + b"x" * 200_000 + b"\r\n{}\r\n0\r\n\r\n"),
        CLIENT_ERROR,
        True,
    ),
    "endless trailers": (
        chunked(b"2\r\n{}\r\n0\r\n" + b"X-T: y\r\n" * 100_000 + b"\r\n"),
        CLIENT_ERROR,
        False,
    ),
    "chunk without its end": (chunked(b"2\r\n{}xx0\r\n\r\n"), CLIENT_ERROR, True),
    "length and chunked": (
        post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        FRAMED_TWICE,
        True,
    ),
    "chunked and length": (
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n" + SMUGGLED),
        FRAMED_TWICE,
        True,
    ),
    "two lengths": (
        post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}" + SMUGGLED),
        CLIENT_ERROR,
        True,
    ),
    "length with a sign": (post(b"Content-Length: +2\r\n", b"{}" + SMUGGLED), CLIENT_ERROR, True),
    "negative length": (post(b"Content-Length: -1\r\n", b"{}"), CLIENT_ERROR, True),
    "length over 64 bits": (
        post(b"Content-Length: 99999999999999999999999\r\n", b"{}"),
        CLIENT_ERROR,
        True,
    ),
    "length of 2^62": (
        post(b"Content-Length: 4611686018427387904\r\n", b"{}"),
        CLIENT_ERROR,
        False,
    ),
    "odd coding": (
        post(b"Transfer-Encoding: gzip, identity\r\n", b"{}"),
        {*CLIENT_ERROR, 501},
        True,
    ),
    "chunked twice": (
        post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        {*CLIENT_ERROR, 501},
        True,
    ),
    "chunked with a tab": (
        post(b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        {*CLIENT_ERROR, 501},
        True,
    ),
    "space before the colon": (post(b"Content-Length : 2\r\n", b"{}"), CLIENT_ERROR, True),
    "folded header": (get("/healthz", "X-A: b\r\n c: d"), {200, 400}, False),
    "header without a colon": (get("/healthz", "nonsense"), {400}, True),
    "NUL in a header": (get("/healthz", "X-A: b\x00c"), {400}, True),
    "NUL in the path": (get(b"/a\x00b"), {400}, True),
    "no host": (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", {200, 400}, False),
    "odd hosts": (
        b"GET /REPO/resolve/main/config.json HTTP/1.1\r\nHost: a b<script>\r\nConnection: close\r\n\r\n",
        {200, 400},
        False,
    ),
    "two hosts": (get("/healthz", "Host: there"), {200, 400}, False),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: here\n\n", {200, 400}, False),
    "version 3.0": (b"GET / HTTP/3.0\r\nHost: here\r\n\r\n", {400, 505}, True),
    "version nonsense": (b"GET / HTTP/x\r\n\r\n", {400}, True),
    "no version": (b"GET /\r\n\r\n", {400}, True),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}, True),
    "junk": (bytes(range(256)) * 40, {400}, True),
    "empty lines": (b"\r\n" * 100_000 + get("/healthz"), {200, 400, 431}, False),
    "method of 60 KB": (
        b"A" * 60_000 + b" / HTTP/1.1\r\nHost: here\r\n\r\n",
        {400, 405, 414, 431},
        False,
    ),
    "unknown method": (
        b"BREW /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        {400, 404, 405, 501},
        False,
    ),
    "CONNECT": (
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        {400, 404, 405, 501},
        False,
    ),
    "TRACE": (
        b"TRACE / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        {400, 404, 405, 501},
        False,
    ),
    "absolute URL elsewhere": (
        get("http://example.com/REPO/resolve/main/config.json"),
        {200, 400, 404, 421},
        False,
    ),
    "asterisk": (
        b"OPTIONS * HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        {200, 204, 400, 404, 405},
        False,
    ),
    "upgrade to nonsense": (
        get("/healthz", "Upgrade: nonsense", "Connection: upgrade"),
        {200, 400},
        False,
    ),
    "expectation that is none": (
        post(b"Expect: miracles\r\nContent-Length: 2\r\nConnection: close\r\n", b"{}"),
        {200, *CLIENT_ERROR},
        False,
    ),
}

# The rest of the body may come yet: waiting for it (and giving up on it, see the slow clients) is right.
UNFINISHED = {"chunk size of 2^63", "length of 2^62", "chunk without its end"}


@pytest.mark.parametrize("case", CASES)
def test_odd_request(served, case):
    data, right, closes = CASES[case]
    got = exchange(served, data.replace(b"REPO", served.repo.encode()), wait=SECONDS)
    assert not any(status >= 500 and status not in (501, 505) for status in got.statuses), got.head
    assert all(status in right for status in got.statuses), f"{got.statuses}: {got.head!r}"
    assert got.statuses or got.closed or case in UNFINISHED, "neither an answer nor an end"
    assert got.seconds < SECONDS
    assert len(got.statuses) <= 1, f"one request, {len(got.statuses)} answers: {got.statuses}"
    if closes:
        assert got.closed, f"the connection goes on after doubtful framing: {got.head!r}"


PERCENT = [
    "%",
    "%z",
    "%zz",
    "%0",
    "%00",
    "a%00b",
    "%ff",
    "%c0%ae",
    "%c0%af",
    "%ed%a0%80",
    "%u0041",
    "%0a",
    "%0d%0aX-Injected:%20yes",
    "%1b%5b31m",
    "%7f",
    "x%2f%2fy",
    "%252e",
    "%e2%80%ae",
    "%25",
]


@pytest.mark.parametrize("percent", PERCENT)
def test_odd_percent_encodings(served, percent):
    repo = served.repo
    for path in (
        f"/{percent}",
        f"/{repo}/resolve/main/{percent}",
        f"/{repo}/resolve/{percent}/config.json",
        f"/{percent}/model/resolve/main/config.json",
        f"/api/models/{repo}/tree/main/{percent}",
        f"/api/models/{repo}/revision/{percent}",
        f"/api/models/{percent}",
        f"/api/models?search={percent}",
        f"/api/models?limit={percent}",
        f"/api/models?cursor={percent}",
        f"/{repo}/raw/main/{percent}",
        f"/api/models/{repo}/commits/{percent}",
    ):
        got = exchange(served, get(path), wait=SECONDS)
        assert len(got.statuses) == 1, f"{path}: {got.data[:200]!r}"
        assert got.statuses[0] in {400, 404, 414} or ("?" in path and got.statuses[0] == 200), path
        assert got.header("X-Injected") is None
        if got.statuses[0] != 200:
            assert json.loads(got.body)["error"], f"{path}: {got.body[:200]!r}"


def ranges(served, name, value):
    return served.get(f"/{served.repo}/resolve/main/{name}", {"Range": value})


@pytest.mark.parametrize("name", [LARGE, SMALL])
@pytest.mark.parametrize(
    "value",
    [
        "bytes=0-",
        "bytes=0-0",
        "bytes=5-9",
        "bytes=-1",
        "bytes=-999999999",
        "bytes=0-99999999999",
        "bytes=0-18446744073709551615",
        "bytes=0-18446744073709551616",
        "bytes=-18446744073709551616",
        "bytes=99999999999-",
        "bytes=18446744073709551615-",
        "bytes=18446744073709551616-18446744073709551617",
        "bytes=-0",
        "bytes=9-5",
        "bytes=--1",
        "bytes=-5-9",
        "bytes=a-b",
        "bytes=",
        "bytes",
        "bytes=-",
        "",
        "=",
        "octets=0-5",
        "bytes=0 - 5",
        "bytes= 0-5",
        "bytes=0x1-0x5",
        "bytes=+1-+5",
        "bytes=1.0-5",
        "bytes=0-5,",
        "bytes=,0-5",
        "bytes=0-1,2-3",
        "bytes=0-0,-1",
        "bytes=0-,0-,0-,0-",
        "bytes=5-9,0-99999999999999999999",
        "BYTES=0-5",
        "bytes=\u0661-\u0665",
    ],
)
def test_odd_ranges(served, name, value):
    """Any answer is the whole file, the right part of it, or a clear refusal."""
    content = (served.source / name).read_bytes()
    got = exchange(
        served, get(f"/{served.repo}/resolve/main/{name}", f"Range: {value}"), wait=SECONDS
    )
    assert len(got.statuses) == 1
    check_range_answer(content, got.statuses[0], got.header, got.body)


def check_range_answer(content: bytes, status: int, header, body: bytes):
    assert status in {200, 206, 400, 416}, status
    if status == 200:
        assert body == content
    elif status == 206 and "multipart" not in (header("Content-Type") or ""):
        first, last, total = map(
            int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", header("Content-Range")).groups()
        )
        assert total == len(content) and first <= last < total
        assert body == content[first : last + 1]
        assert int(header("Content-Length")) == len(body)
    elif status == 416:
        assert header("Content-Range") == f"bytes */{len(content)}"


@pytest.mark.parametrize("count", [100, 10_000])
@pytest.mark.parametrize("shape", ["{i}-{i}", "0-", "-1", "{i}-"])
def test_many_ranges_cost_no_more_than_the_file(served, count, shape):
    content = (served.source / LARGE).read_bytes()
    value = "bytes=" + ",".join(shape.format(i=i) for i in range(count))
    got = exchange(
        served, get(f"/{served.repo}/resolve/main/{LARGE}", f"Range: {value}"), wait=SECONDS
    )
    assert got.statuses[:1] != [500]
    assert all(status in {200, 206, 400, 416, 431} for status in got.statuses[:1])
    assert len(got.data) < len(content) + 200 * min(count, 200), (
        f"{len(got.data)} bytes for one file"
    )


@pytest.mark.parametrize(
    "value, status", [("bytes=99999999999-", 416), ("bytes=0-0", 206), ("bytes=-5", 206)]
)
def test_ranges_that_clients_use(served, value, status):
    assert ranges(served, LARGE, value).status == status


DOTS = [
    "..",
    "%2e%2e",
    "%2E%2e",
    ".%2e",
    "%2e.",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "..%00",
    "..;",
    "...",
    ". .",
    "%2e%2e%20",
    "\uff0e\uff0e",
]
SEPARATORS = ["/", "%2f", "%2F", "%5c", "\\", "//", "/./", "%252f", "%c0%af"]
TARGETS = ["sentinel.txt", "data/sentinel.txt", "keys/sentinel.txt", "etc/passwd"]


def test_no_path_leads_outside(served, long):
    """Thousands of spellings of `..`: never a byte that is not in the repository, never a 5xx."""
    repo = served.repo
    prefixes = [
        f"/{repo}/resolve/main/",
        f"/{repo}/raw/main/",
        f"/{repo}/resolve/",
        "/",
        f"/api/models/{repo}/tree/main/",
        f"/datasets/{repo}/resolve/main/",
        "/api/models/",
        f"/{repo}/resolve/main/part/",
    ]
    depths = range(1, 9) if long else (1, 2, 4, 8)
    connection, count = served.connect(), 0
    for prefix, dots, separator, depth in itertools.product(prefixes, DOTS, SEPARATORS, depths):
        if any(character in dots + separator for character in " \\") and not long:
            continue
        for target in TARGETS if long else TARGETS[: 1 + count % 4 // 3 * 3 : 3]:
            path = prefix + (dots + separator) * depth + target.replace("/", separator)
            data = path.encode()
            count += 1
            if b" " in data or data != path.encode("ascii", "replace"):
                body, status = raw(served, data)
            else:
                answer = served.get(path, connection=connection)
                body, status = answer.body, answer.status
            assert SENTINEL not in body and b"root:" not in body, f"{path} leads outside"
            assert status < 500, f"{path}: {status}"
            assert status != 200 or prefix in ("/", "/api/models/"), f"{path}: 200 {body[:200]!r}"
    print(f"{count} paths")


def raw(served, path: bytes):
    got = exchange(served, get(path), wait=SECONDS)
    return got.data, (got.statuses or [400])[0]


@pytest.mark.parametrize(
    "path",
    ["../../sentinel.txt", "/etc/passwd", "..\\sentinel.txt", "a\x00b", "", ".", "a" * 100_000],
)
def test_paths_in_bodies_do_not_lead_outside(served, path):
    url = f"/api/models/{served.repo}/paths-info/main"
    for headers, body in (
        ({"Content-Type": "application/json"}, json.dumps({"paths": [path], "expand": True})),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            "paths=" + "".join(f"%{b:02x}" for b in path.encode()[:20_000]),
        ),
    ):
        answer = served.request("POST", url, headers, body)
        assert answer.status in {200, 400, 404, 413, 422}, answer.body[:200]
        assert SENTINEL not in answer.body
        if answer.status == 200:
            assert answer.json() == [] or path in ("", "."), answer.body[:200]


BODIES = {
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "duplicate members": b'{"paths":["config.json"],"paths":["README.md"],"expand":true}',
    "no object": b"[]",
    "numbers for names": b'{"paths":[1,2,3]}',
    "a million names": b'{"paths":[' + b'"x",' * 999_999 + b'"x"]}',
    "unpaired surrogate": b'{"paths":["\\ud800"]}',
    "no UTF-8": b'{"paths":["\xff"]}',
    "NUL": b"\x00" * 1000,
}


@pytest.mark.parametrize("case", BODIES)
def test_odd_bodies(served, case):
    body = BODIES[case]
    headers = (
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    data = post(headers.encode(), body).replace(b"REPO", served.repo.encode())
    got = exchange(served, data, wait=SECONDS)
    assert got.closed and len(got.statuses) <= 1
    # A body refused for its length need not be read, and then the answer may be lost with it.
    assert got.statuses or len(body) > MIB, "no answer"
    for status in got.statuses:
        assert status in {200, 400, 413, 422}, got.data[:300]
        if status != 200:
            assert json.loads(got.body)["error"]


def test_oversized_body_is_refused_without_reading_it_all(served):
    head = post(b"Content-Type: application/json\r\nContent-Length: 1073741824\r\n", b"")
    pieces = itertools.chain(
        [head.replace(b"REPO", served.repo.encode())], itertools.repeat(b"[" * 65_536, 16_384)
    )
    got = exchange(served, pieces, wait=SECONDS)
    assert not got.statuses or got.statuses[0] in {400, 413}, got.head
    assert got.closed


def test_compressed_body_is_not_a_bomb(served):
    bomb = gzip.compress(bytes(256 * MIB), 9)
    answer = served.request(
        "POST",
        f"/api/models/{served.repo}/paths-info/main",
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        bomb,
    )
    assert answer.status in {400, 413, 415, 422}, answer.status


def test_pipelined_requests_are_answered_in_order(served):
    one = f"GET /{served.repo}/resolve/main/config.json HTTP/1.1\r\nHost: here\r\n\r\n".encode()
    two = b"GET /nowhere/at/all HTTP/1.1\r\nHost: here\r\n\r\n"
    got = exchange(served, (one + two) * 50 + get("/healthz"), wait=SECONDS)
    assert got.statuses == [200, 404] * 50 + [200]


def test_http2_rapid_reset(served, long):
    """Streams opened and reset at once, by the ten thousands: ended or borne, at no cost to others."""
    path = f"/{served.repo}/resolve/main/{LARGE}".encode()
    count = 50_000 if long else 10_000
    streams = range(1, 2 * count, 2)
    pieces = [HTTP2_PREFACE + frame(4, 0, 0, b"")]
    for start in range(0, count, 500):
        pieces.append(
            b"".join(
                http2_get(i, path) + frame(3, 0, i, bytes([0, 0, 0, 8]))
                for i in streams[start : start + 500]
            )
        )
    with Healthy(served, f"/{served.repo}/resolve/main/config.json") as healthy:
        got = exchange(served, pieces, wait=1.0)
        wait_for(lambda: len(healthy.seconds) >= 50, 20, "others are served")
    print(f"{len(got.data)} bytes came back; closed: {got.closed}")
    healthy.check()


def test_http2_floods(served):
    """Settings, pings, empty data and endless continuation frames."""
    start = HTTP2_PREFACE + frame(4, 0, 0, b"")
    floods = {
        "settings": frame(4, 0, 0, b"\x00\x04\x00\x00\xff\xff") * 20_000,
        "pings": frame(6, 0, 0, bytes(8)) * 50_000,
        "priorities": b"".join(frame(2, 0, i, bytes(5)) for i in range(1, 20_000, 2)),
        "continuations": frame(1, 0, 1, b"\x82\x86\x84")
        + frame(9, 0, 1, b"\x00\x01a\x7f" + b"b" * 127) * 20_000,
        "headers of 10 MB": frame(1, 0, 1, b"\x82\x86\x84")
        + frame(9, 0, 1, (b"\x00\x01a\x7e" + b"b" * 126) * 100) * 800,
        "windows": frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
        "frame too large": b"\xff\xff\xff" + bytes(6) + bytes(100_000),
    }
    with Healthy(served, f"/{served.repo}/resolve/main/config.json") as healthy:
        for name, flood in floods.items():
            got = exchange(served, [start, flood], wait=0.5)
            print(f"{name}: {len(got.data)} bytes came back; closed: {got.closed}")
        wait_for(lambda: len(healthy.seconds) >= 50, 20, "others are served")
    healthy.check()
