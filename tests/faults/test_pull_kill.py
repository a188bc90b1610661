"""`kill -9` of either side at random instants of pulls: what was verified is kept, and nothing is lost."""

import contextlib
import json
import subprocess
import time

import pytest

from cairn import Cairn, wait_for
from folders import MIB, Ledger, assert_published, fingerprint, renew
from two_nodes import Two, transfers

LARGE = (160 * MIB, 96 * MIB, 48 * MIB)
# What may cross the wire again after a kill, whichever is more.
AGAIN_SHARE = 0.10
AGAIN_BYTES = 16 * MIB


@pytest.fixture
def two(folder, rng):
    made = Two(folder, rng, large=LARGE, small=20)
    made.up()
    yield made
    made.close()


def start_pull(node: Cairn, repo: str, *arguments) -> subprocess.Popen:
    """Begins a pull and returns its process."""
    return subprocess.Popen(
        node.command("pull", repo, "--json", *arguments),
        env=node.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )


def measure(two: Two) -> float:
    """Seconds that an undisturbed pull of all-new content takes."""
    renew(two.tree, two.rng)
    pushed = two.publish("measured")
    begin = time.monotonic()
    pulled = two.sink.json("pull", pushed["repo"])
    assert pulled["network_bytes"] >= two.size(), pulled
    return time.monotonic() - begin


def had_before(two: Two, pull: subprocess.Popen, instant: float) -> int:
    """Waits for the instant; bytes that the sink was seen to have of what it fetches."""
    end, had = time.monotonic() + instant, 0
    while (left := end - time.monotonic()) > 0 and pull.poll() is None:
        # Files that are complete are no longer in the list: the list only shows less than there is.
        had = max(had, sum(transfer["done"] for transfer in transfers(two.sink)))
        with contextlib.suppress(subprocess.TimeoutExpired):
            pull.wait(min(left, 0.05))
    return had


def test_kill_of_the_fetching_node(two, folder, rng, long):
    ledger = Ledger(folder / "ledger")
    seconds = measure(two)
    count = 15 if long else 5
    landed = 0
    for number in range(count):
        renew(two.tree, rng)
        pushed = two.publish(f"model-{number}")
        instant = seconds * rng.uniform(0.05, 0.95)
        print(f"kill {number} after {instant:.2f} of {seconds:.2f} s")
        pull = start_pull(two.sink, pushed["repo"])
        had = had_before(two, pull, instant)
        landed += pull.poll() is None
        two.sink.kill()
        pull.communicate(timeout=30)
        two.sink.up()
        two.connected()
        ledger.check_listed(two.sink.gateway)
        verified = two.sink.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        again = two.sink.json("pull", pushed["repo"])
        allowed = two.size() - had + max(AGAIN_SHARE * had, AGAIN_BYTES)
        assert again["network_bytes"] <= allowed, (
            f"{again['network_bytes']} bytes after a kill that left at least {had} of {two.size()}"
        )
        content = fingerprint(two.tree)
        assert_published(two.sink.gateway, pushed["repo"], pushed["commit"], content)
        ledger.add(pushed, content)
    assert two.sink.run("verify", "--json").returncode == 0
    assert landed * 2 >= count, f"only {landed} of {count} kills fell into a pull"


def test_kill_of_the_serving_node(two, folder, rng, long):
    seconds = measure(two)
    count = 15 if long else 4
    landed = 0
    for number in range(count):
        renew(two.tree, rng)
        pushed = two.publish(f"model-{number}")
        instant = seconds * rng.uniform(0.05, 0.9)
        print(f"kill {number} after {instant:.2f} of {seconds:.2f} s")
        pull = start_pull(two.sink, pushed["repo"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            pull.wait(instant)
        landed += pull.poll() is None
        sent = two.sent()
        two.source.kill()
        if number % 2:
            # Back at once: the pull goes on by itself, or says why it does not.
            two.source.up()
        stdout, stderr = pull.communicate(timeout=120)
        if pull.returncode != 0:
            assert "error:" in stderr and "hint:" in stderr, stderr
        if two.source.process is None:
            two.source.up()
        assert two.source.run("verify", "--json").returncode == 0
        two.connected()
        again = two.sink.json("pull", pushed["repo"])
        fetched = again["network_bytes"]
        if pull.returncode == 0:
            fetched += json.loads(stdout)["network_bytes"] - sent
        # What the killed node had sent was kept, but for what was on its way.
        allowed = two.size() - sent + max(AGAIN_SHARE * sent, AGAIN_BYTES)
        assert fetched <= allowed, f"{fetched} of {two.size()} bytes after {sent} were sent"
        content = fingerprint(two.tree)
        assert_published(two.sink.gateway, pushed["repo"], pushed["commit"], content)
    assert two.sink.run("verify", "--json").returncode == 0
    assert landed * 2 >= count, f"only {landed} of {count} kills fell into a pull"


def test_a_download_whose_only_source_dies_ends_early_and_resumes(two, folder, rng):
    pushed = two.publish("model")
    path = two.sink.gateway.file_path(pushed["repo"], "main", "weights-00.safetensors")
    size = LARGE[0]
    connection = two.sink.gateway.connect(seconds=120)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200 and int(response.headers["Content-Length"]) == size
    got = bytearray(response.read(4 * MIB))
    two.source.kill()
    with pytest.raises(Exception) as broken:
        while part := response.read1(MIB):
            got += part
        if len(got) < size:
            raise EOFError("the body ended early")
        raise AssertionError("the whole file came although its only source was killed")
    assert not isinstance(broken.value, AssertionError), broken.value
    connection.close()
    assert len(got) < size
    two.source.up()
    two.connected()
    wait_for(lambda: two.source.json("peers")["peers"], 30, "the source has a peer")
    rest = two.sink.gateway.get(path, {"Range": f"bytes={len(got)}-"})
    assert rest.status == 206, f"{rest.status} {rest.body[:300]!r}"
    assert bytes(got) + rest.body == (two.tree / "weights-00.safetensors").read_bytes()
    again = two.sent()
    kept = AGAIN_BYTES + max(0, size - len(got))
    assert again <= kept, f"{again} bytes were sent again although {len(got)} had been read"
