"""The cache's bound, and the limits of rates: what a node keeps of others' content, and how fast it moves."""

import threading
import time

import pytest

from cairn import wait_for
from folders import MIB, file_sha256, fingerprint, renew
from two_nodes import Two

FILE = 12 * MIB
BOUND = 40 * MIB


@pytest.fixture
def two(folder, rng):
    made = Two(folder, rng, large=(FILE,), small=2)
    made.sink.environment["CAIRN_CACHE_SIZE"] = str(BOUND)
    made.up()
    yield made
    made.close()


def models(two: Two, names: str) -> dict:
    """Publishes a model for each letter: its repository, and the hash of its large file."""
    made = {}
    for name in names:
        renew(two.tree, two.rng)
        pushed = two.publish(name)
        made[name] = (pushed["repo"], file_sha256(two.tree / "weights-00.safetensors"))
    return made


def here(two: Two, made: dict) -> str:
    """The models whose large file the sink has."""
    stored = {file_sha256(path) for path in two.sink.blob_paths()}
    return "".join(name for name, (_, sha256) in made.items() if sha256 in stored)


def read(two: Two, made: dict, name: str):
    """A client's download of a model's large file."""
    repo, sha256 = made[name]
    got = two.sink.gateway.file(repo, "main", "weights-00.safetensors")
    assert (got.status, got.sha256) == (200, sha256)


def assert_bounded(two: Two):
    """The cache is within its bound, by its own count and by the disk's."""
    cache = two.sink.json("status")["cache"]
    assert cache["bytes"] <= BOUND and cache["bound"] <= BOUND, cache
    return cache


def test_the_least_recently_used_go_first(two):
    made = models(two, "abcdef")
    for name in "abc":
        two.sink.json("pull", made[name][0])
    assert here(two, made) == "abc"
    read(two, made, "a")
    two.sink.json("pull", made["d"][0])
    assert here(two, made) == "acd", "b was not used for longest"
    assert_bounded(two)
    # A client's download makes room as a pull does.
    read(two, made, "e")
    assert here(two, made) == "ade"
    # What was evicted comes again.
    read(two, made, "b")
    assert here(two, made) == "bde"
    assert sum(path.stat().st_size for path in two.sink.blob_paths()) <= BOUND
    two.sink.kill()
    two.sink.up()
    two.connected()
    assert here(two, made) == "bde"
    assert_bounded(two)
    assert two.sink.run("verify").returncode == 0
    two.sink.json("pull", made["f"][0])
    assert "f" in here(two, made) and len(here(two, made)) == 3
    assert_bounded(two)


def test_what_is_pinned_or_own_stays(two, folder):
    made = models(two, "abcde")
    two.sink.json("pin", made["a"][0])
    two.sink.json("pull", made["a"][0])
    renew(two.tree, two.rng)
    own = two.sink.push(two.tree, "own")
    content = fingerprint(two.tree)
    for name in "bcde":
        two.sink.json("pull", made[name][0])
    kept = here(two, made)
    assert kept == "acde", "the pinned one is not counted, and three fit beside it"
    got = two.sink.gateway.file(own["repo"], "main", "weights-00.safetensors")
    assert got.sha256 == content["weights-00.safetensors"]
    assert_bounded(two)
    two.sink.json("unpin", made["a"][0])
    read(two, made, "b")
    assert "b" in here(two, made) and len(here(two, made)) == 3
    assert_bounded(two)


def test_what_is_larger_than_the_bound_is_refused_and_costs_nothing(two, rng):
    made = models(two, "abc")
    for name in "abc":
        two.sink.json("pull", made[name][0])
    with open(two.tree / "weights-00.safetensors", "ab") as file:
        for _ in range(40):
            file.write(rng.randbytes(MIB))
    large = two.publish("large")
    failed = two.sink.run("pull", large["repo"])
    assert failed.returncode == 1 and "cache" in failed.stderr, failed.stderr
    assert "hint:" in failed.stderr and "cache_size" in failed.stderr, failed.stderr
    path = two.sink.gateway.file_path(large["repo"], "main", "weights-00.safetensors")
    answer = two.sink.gateway.get(path)
    assert answer.status == 507, f"{answer.status} {answer.body[:300]!r}"
    assert here(two, made) == "abc"
    two.sink.json("pin", large["repo"])
    two.sink.json("pull", large["repo"])
    assert here(two, made) == "abc", "what is pinned is no cache"


def test_what_is_being_read_stays_until_it_is_read(two):
    made = models(two, "abcde")
    for name in "abc":
        two.sink.json("pull", made[name][0])
    repo, sha256 = made["a"]
    connection = two.sink.gateway.connect(seconds=60)
    connection.request("GET", two.sink.gateway.file_path(repo, "main", "weights-00.safetensors"))
    response = connection.getresponse()
    got = response.read(MIB)
    for name in "bc":
        read(two, made, name)
    two.sink.json("pull", made["d"][0])
    assert here(two, made) == "acd", "a was not used for longest, and is being read"
    assert_bounded(two)
    got += response.read()
    connection.close()
    assert len(got) == FILE
    with open(two.folder / "got", "wb") as file:
        file.write(got)
    assert file_sha256(two.folder / "got") == sha256
    # The node learns that all is sent when its side of the connection has ended.
    two.sink.json("pull", made["e"][0])
    wait_for(lambda: two.sink.json("pull", made["b"][0]) and "a" not in here(two, made), 20, "a goes")


def test_readers_of_more_than_fits_all_get_their_bytes(two):
    """Four files of which three fit, read over and over by four clients at once."""
    made = models(two, "abcd")
    wrong = []

    def client(names):
        for name in names:
            repo, sha256 = made[name]
            try:
                got = two.sink.gateway.file(repo, "main", "weights-00.safetensors")
            except Exception as error:  # noqa: BLE001 (shown below)
                wrong.append((name, repr(error)))
                continue
            # No room while the other three are on their way is an answer too.
            if (got.status, got.sha256) != (200, sha256) and got.status != 507:
                wrong.append((name, got.status, got.start[:200]))

    clients = [threading.Thread(target=client, args=(order,)) for order in ("abcd", "bcda", "cdab", "dabc")]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong, f"{wrong}; the log: {two.sink.logged()}"
    assert len(here(two, made)) <= 3
    assert_bounded(two)
    assert two.sink.run("verify").returncode == 0


@pytest.mark.parametrize("limit", ["upload_rate", "download_rate"])
def test_a_rate_holds(folder, rng, limit):
    two = Two(folder, rng, large=(8 * MIB,), small=2)
    limited = two.source if limit == "upload_rate" else two.sink
    limited.environment[f"CAIRN_{limit.upper()}"] = str(4 * MIB)
    try:
        two.up()
        pushed = two.publish("model")
        begin = time.monotonic()
        two.sink.json("pull", pushed["repo"], "--to", str(folder / "out"))
        seconds = time.monotonic() - begin
        # A quarter of a second's worth may come at once, and a piece was read when it was listed.
        assert 1.4 <= seconds <= 8, f"8 MiB at 4 MiB/s took {seconds:.2f} s"
        two.check(folder / "out")
    finally:
        two.close()


def test_small_files_count_too(folder, rng):
    """They stand in the log: it is written anew without them once they exceed the bound."""
    two = Two(folder, rng, large=(), small=2)
    bound = 2 * MIB
    two.sink.environment["CAIRN_CACHE_SIZE"] = str(bound)
    for number in range(80):
        (two.tree / f"small-{number:02}.bin").write_bytes(rng.randbytes(40 << 10))
    try:
        two.up()
        pushed = two.publish("many")
        two.sink.json("pull", pushed["repo"])
        blobs = lambda: two.sink.json("status")["bytes"]  # noqa: E731
        assert blobs() > 80 * (40 << 10)
        # It looks once a minute.
        wait_for(lambda: blobs() < bound, 90, "the small files are gone")
        assert two.sink.run("verify").returncode == 0
        before = two.sent()
        got = two.sink.gateway.file(pushed["repo"], "main", "small-07.bin")
        assert got.sha256 == file_sha256(two.tree / "small-07.bin")
        assert two.sent() > before, "it comes again"
    finally:
        two.close()
