"""`kill -9` of either side at random instants of pulls: what was verified is kept, and nothing is lost."""

import contextlib
import subprocess
import time

import pytest

from cairn import Cairn, wait_for
from folders import MIB, Ledger, assert_published, fingerprint, renew
from two_nodes import Two

LARGE = (160 * MIB, 96 * MIB, 48 * MIB)
# What may cross the wire again after a kill, whichever is more.
AGAIN_SHARE = 0.10
AGAIN_BYTES = 16 * MIB
# Until a killed node answers again: it reads a few records, and hashes what is in doubt later.
UP_SECONDS = 10


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
    # The card came before, and whoever lists the commit has read where its tensors stand.
    assert pulled["network_bytes"] >= two.size() * 0.95, pulled
    return time.monotonic() - begin


def wait_until(instant: float, pull: subprocess.Popen) -> bool:
    """Waits so many seconds; whether the pull still runs."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        pull.wait(instant)
    return pull.poll() is None


def assert_nothing_left(node: Cairn):
    """No file of a pull stays once all that it wanted is stored."""
    left = node.temporary_files() + node.partial_files()
    assert left == [], f"left behind: {left}"


def test_kill_of_the_fetching_node(two, folder, rng, long):
    ledger = Ledger(folder / "ledger")
    seconds = measure(two)
    count = 15 if long else 5
    landed = 0
    for number in range(count):
        renew(two.tree, rng)
        pushed = two.publish(f"model-{number}")
        before = two.sent()
        instant = seconds * rng.uniform(0.05, 0.95)
        pull = start_pull(two.sink, pushed["repo"])
        landed += wait_until(instant, pull)
        two.sink.kill()
        pull.communicate(timeout=30)
        begin = time.monotonic()
        two.sink.up()
        started = time.monotonic() - begin
        two.connected()
        had = two.sent() - before
        ledger.check_listed(two.sink.gateway)
        verified = two.sink.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        again = two.sink.json("pull", pushed["repo"])
        print(
            f"kill {number} after {instant:.2f} of {seconds:.2f} s: {had} of {two.size()} bytes were"
            f" sent, {again['network_bytes']} came after it; up again in {started:.2f} s"
        )
        # What was on its way is counted as if it had arrived.
        allowed = two.size() - had + max(AGAIN_SHARE * had, AGAIN_BYTES)
        assert again["network_bytes"] <= allowed, f"{again} after {had} of {two.size()} bytes"
        assert started <= UP_SECONDS, f"up again only after {started:.1f} s"
        assert_nothing_left(two.sink)
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
        before = two.sent()
        instant = seconds * rng.uniform(0.05, 0.9)
        pull = start_pull(two.sink, pushed["repo"])
        landed += wait_until(instant, pull)
        had = two.sent() - before
        two.source.kill()
        if number % 2:
            # Back at once: the pull goes on by itself, or says why it does not.
            two.source.up()
        _, stderr = pull.communicate(timeout=120)
        if pull.returncode != 0:
            assert "error:" in stderr and "hint:" in stderr, stderr
        if two.source.process is None:
            two.source.up()
        verified = two.source.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        two.connected()
        two.sink.json("pull", pushed["repo"])
        # Since the source was started again: by the pull that went on, if it did, and by the next one.
        after = two.sent()
        print(
            f"kill {number} after {instant:.2f} of {seconds:.2f} s: the pull ended with"
            f" {pull.returncode}; {had} of {two.size()} bytes were sent before, {after} after"
        )
        allowed = two.size() - had + max(AGAIN_SHARE * had, AGAIN_BYTES)
        assert after <= allowed, f"{after} of {two.size()} bytes after {had} were sent"
        assert_nothing_left(two.sink)
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
    begin = time.monotonic()
    with pytest.raises(Exception) as broken:
        while part := response.read1(MIB):
            got += part
        if len(got) < size:
            raise EOFError("the body ended early")
        raise AssertionError("the whole file came although its only source was killed")
    assert not isinstance(broken.value, AssertionError), broken.value
    print(f"the answer ended after {time.monotonic() - begin:.1f} s, with {broken.value!r}"[:200])
    connection.close()
    assert len(got) < size
    two.source.up()
    two.connected()
    wait_for(lambda: two.source.json("peers")["peers"], 30, "the source has a peer")
    print(f"connected again after {time.monotonic() - begin:.1f} s")
    rest = two.sink.gateway.get(path, {"Range": f"bytes={len(got)}-"})
    assert rest.status == 206, f"{rest.status} {rest.body[:300]!r}"
    assert bytes(got) + rest.body == (two.tree / "weights-00.safetensors").read_bytes()
    again = two.sent()
    kept = AGAIN_BYTES + max(0, size - len(got))
    assert again <= kept, f"{again} bytes were sent again although {len(got)} had been read"
