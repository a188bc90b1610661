"""`kill -9` of either side at random instants of pulls: what was verified is kept, and nothing is lost."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cairn import Cairn, wait_for
from folders import MIB, Ledger, assert_published, file_sha256, fingerprint, renew
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


def measure(two: Two) -> tuple:
    """Seconds that an undisturbed pull of all-new content takes, and those of them in which it fetches."""
    renew(two.tree, two.rng)
    pushed = two.publish("measured")
    begin = time.monotonic()
    pulled = two.sink.json("pull", pushed["repo"])
    # The card came before, and whoever lists the commit has read where its tensors stand.
    assert pulled["network_bytes"] >= two.size() * 0.95, pulled
    return time.monotonic() - begin, pulled["fetch_seconds"]


def wait_until(instant: float, pull: subprocess.Popen) -> bool:
    """Waits so many seconds; whether the pull still runs."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        pull.wait(instant)
    return pull.poll() is None


def taken(node: Cairn) -> int:
    """Bytes of verified content that a node has from peers, since it was started."""
    return sum(peer["taken_bytes"] for peer in node.json("peers")["peers"])


class Instant:
    """One of those at which a node is killed; says whether the kill fell into a fetch."""

    def __init__(self, number: int):
        self.number = number
        self.landed = False

    def __str__(self):
        return str(self.number)


def instants(count: int):
    """As many as it takes for so many kills to fall into what a pull fetches; at most four times as many."""
    landed = 0
    for number in range(4 * count):
        instant = Instant(number)
        yield instant
        landed += instant.landed
        if landed == count:
            return
    raise AssertionError(f"only {landed} of {4 * count} kills fell into a pull")


def assert_nothing_left(node: Cairn):
    """No file of a pull stays once all that it wanted is stored."""
    left = node.temporary_files() + node.partial_files()
    assert left == [], f"left behind: {left}"


def test_kill_of_the_fetching_node(two, folder, rng, long):
    ledger = Ledger(folder / "ledger")
    pulled = []
    seconds, fetching = measure(two)
    for number in instants(30 if long else 5):
        renew(two.tree, rng)
        pushed = two.publish(f"model-{number}")
        before = taken(two.sink)
        # Before it fetches it waits until it has heard what is new.
        instant = seconds - fetching * rng.uniform(0.05, 1)
        pull = start_pull(two.sink, pushed["repo"])
        is_running = wait_until(instant, pull)
        had = taken(two.sink) - before
        number.landed = is_running and had > 0
        two.sink.kill()
        pull.communicate(timeout=30)
        begin = time.monotonic()
        two.sink.up()
        started = time.monotonic() - begin
        two.connected()
        ledger.check_listed(two.sink.gateway)
        for repo in pulled:
            again = two.sink.json("pull", repo)
            assert again["network_bytes"] == 0, f"what was pulled before the kill is here: {again}"
        verified = two.sink.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        again = two.sink.json("pull", pushed["repo"])
        print(
            f"kill {number} after {instant:.2f} of {seconds:.2f} s: {had} of {two.size()} bytes were"
            f" there, {again['network_bytes']} came after it; up again in {started:.2f} s"
        )
        # What was verified but not written yet is counted as if it had been written.
        allowed = two.size() - had + max(AGAIN_SHARE * had, AGAIN_BYTES)
        assert again["network_bytes"] <= allowed, f"{again} after {had} of {two.size()} bytes"
        assert started <= UP_SECONDS, f"up again only after {started:.1f} s"
        assert_nothing_left(two.sink)
        content = fingerprint(two.tree)
        assert_published(two.sink.gateway, pushed["repo"], pushed["commit"], content)
        ledger.add(pushed, content)
        pulled.append(pushed["repo"])
    assert two.sink.run("verify", "--json").returncode == 0


def test_kill_of_the_serving_node(two, folder, rng, long):
    seconds, fetching = measure(two)
    for number in instants(30 if long else 4):
        renew(two.tree, rng)
        pushed = two.publish(f"model-{number}")
        before = taken(two.sink)
        instant = seconds - fetching * rng.uniform(0.1, 1)
        pull = start_pull(two.sink, pushed["repo"])
        is_running = wait_until(instant, pull)
        had = taken(two.sink) - before
        number.landed = is_running and had > 0
        two.source.kill()
        if number.number % 2:
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
            f" {pull.returncode}; {had} of {two.size()} bytes were there before, {after} sent after"
        )
        allowed = two.size() - had + max(AGAIN_SHARE * had, AGAIN_BYTES)
        assert after <= allowed, f"{after} of {two.size()} bytes after {had} were sent"
        assert_nothing_left(two.sink)
        content = fingerprint(two.tree)
        assert_published(two.sink.gateway, pushed["repo"], pushed["commit"], content)
    assert two.sink.run("verify", "--json").returncode == 0


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


# What a user of the hub's client runs.
DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download(sys.argv[1], "weights-00.safetensors"))
"""


def test_a_hub_client_goes_on_when_its_only_source_is_back(two, folder):
    assert two.sink.stop() == 0
    # Slow enough to be in the middle of it.
    two.sink.environment["CAIRN_DOWNLOAD_RATE"] = str(32 * MIB)
    two.sink.up()
    two.connected()
    pushed = two.publish("model")
    environment = os.environ | {
        "HF_ENDPOINT": two.sink.gateway.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    client = subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, pushed["repo"]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: two.sent() > 48 * MIB, 30, "the download is under way")
        two.source.kill()
        transfers = lambda: two.sink.json("status")["transfers"]  # noqa: E731
        wait_for(lambda: not transfers(), 60, "the sink has given up")
        assert client.poll() is None, f"the client waits or tries again: {client.communicate()}"
        two.source.up()
        stdout, stderr = client.communicate(timeout=120)
    finally:
        client.kill()
    assert client.returncode == 0, f"{stdout}{stderr}"
    wanted = two.tree / "weights-00.safetensors"
    assert file_sha256(Path(stdout.strip())) == file_sha256(wanted)
    again = two.sent()
    assert again <= wanted.stat().st_size - 32 * MIB, f"{again} bytes: what was here is kept"
