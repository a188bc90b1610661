"""Pulls that meet damage, a full disk, and what is not there."""

import http.client
import threading

import pytest

from cairn import Cairn, wait_for
from folders import MIB, assert_published, fingerprint, renew, sample
from test_disk_full import SIZE, small_disk  # noqa: F401  (a fixture)
from two_nodes import Two


@pytest.fixture
def two(folder, rng):
    made = Two(folder, rng, large=(24 * MIB, 3 * MIB), small=8)
    made.up()
    yield made
    made.close()


def test_a_pull_is_the_pushed_folder_and_crosses_the_wire_once(two, folder):
    pushed = two.publish("model")
    assert two.sink.blob_paths() == [], "contents are fetched when somebody asks for them"
    pulled = two.sink.json("pull", pushed["repo"], "--to", str(folder / "out"))
    two.check(folder / "out")
    assert pulled["network_bytes"] >= two.size() * 0.9
    sent = two.sent()
    assert two.size() <= sent <= two.size() * 1.1 + MIB, f"{sent} bytes for {two.size()}"
    again = two.sink.json("pull", pushed["repo"], "--to", str(folder / "again"))
    two.check(folder / "again")
    assert again["network_bytes"] == 0 and two.sent() == sent


def test_a_former_revision_is_pulled_by_its_name(two, folder):
    first = two.publish("model")
    content = fingerprint(two.tree)
    renew(two.tree, two.rng)
    two.publish("model")
    two.sink.json("pull", f"{first['repo']}@{first['commit']}", "--to", str(folder / "first"))
    pulled = fingerprint(folder / "first")
    assert {path: pulled[path] for path in content} == content
    two.sink.json("pull", f"{first['repo']}@main", "--to", str(folder / "newest"))
    two.check(folder / "newest")
    wrong = two.sink.run("pull", f"{first['repo']}@no-such-branch", "--to", str(folder / "wrong"))
    assert wrong.returncode == 1 and "no-such-branch" in wrong.stderr, wrong.stderr


def test_a_node_that_was_away_hears_what_it_missed(two):
    first = two.publish("first")
    assert two.sink.stop() == 0
    renew(two.tree, two.rng)
    second = two.publish("second", shown=False)
    third = two.source.push(two.tree, "first")
    two.sink.up()
    two.shown(second)
    two.shown(third)
    assert first["commit"] in two.sink.gateway.commits(first["repo"])


def test_ten_clients_cause_one_fetch(two):
    pushed = two.publish("model")
    answers = []

    def get():
        answers.append(two.sink.gateway.file(pushed["repo"], "main", "weights-00.safetensors"))

    clients = [threading.Thread(target=get) for _ in range(10)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wanted = fingerprint(two.tree)["weights-00.safetensors"]
    assert [answer.sha256 for answer in answers] == [wanted] * 10
    assert two.sent() < 24 * MIB * 1.2 + MIB, f"{two.sent()} bytes were sent for one file"


def test_the_end_of_a_file_comes_before_its_middle(two):
    pushed = two.publish("model")
    path = two.sink.gateway.file_path(pushed["repo"], "main", "weights-00.safetensors")
    whole = (two.tree / "weights-00.safetensors").read_bytes()
    answer = two.sink.gateway.get(path, {"Range": "bytes=-8"})
    # A suffix is open-ended for nobody: its bytes are known.
    assert (answer.status, answer.body) == (206, whole[-8:])
    first, last = len(whole) - 5 * MIB, len(whole) - 5 * MIB + 99
    answer = two.sink.gateway.get(path, {"Range": f"bytes={first}-{last}"})
    assert (answer.status, answer.body) == (206, whole[first : last + 1])
    assert two.sent() <= 16 * MIB, f"{two.sent()} bytes were sent for two small ranges"


def test_a_head_request_fetches_nothing(two):
    pushed = two.publish("model")
    sent = two.sent()
    path = two.sink.gateway.file_path(pushed["repo"], "main", "weights-00.safetensors")
    answer = two.sink.gateway.request("HEAD", path)
    assert answer.status == 200 and int(answer.headers["Content-Length"]) == 24 * MIB
    assert two.sent() == sent and two.sink.blob_paths() == []


def test_a_flipped_byte_is_healed_from_a_peer(two):
    pushed = two.publish("model")
    two.sink.json("pull", pushed["repo"])
    for offset in (0, 5 * MIB + 17, 24 * MIB - 1):
        two.sink.damage(two.stored(), offset)
        content = fingerprint(two.tree)
        wait_for(
            lambda: (
                two.sink.gateway.get(
                    two.sink.gateway.file_path(pushed["repo"], "main", "weights-00.safetensors"),
                    {"Range": "bytes=0-0"},
                ).status
                == 206
            ),
            60,
            f"healed; the log: {two.sink.logged()}",
        )
        assert_published(two.sink.gateway, pushed["repo"], "main", content)
        assert two.sink.run("verify", "--json").returncode == 0


def test_damage_at_the_source_is_not_passed_on(two):
    pushed = two.publish("model")
    wanted = fingerprint(two.tree)
    [large] = [path for path in two.source.blob_paths() if path.stat().st_size == 24 * MIB]
    two.source.damage(large, 20 * MIB)
    failed = two.sink.run("pull", pushed["repo"], seconds=120)
    assert failed.returncode == 1 and "error:" in failed.stderr, failed.stderr
    got = two.sink.gateway.file(pushed["repo"], "main", "weights-01.safetensors")
    assert got.sha256 == wanted["weights-01.safetensors"]
    assert two.source.run("verify").returncode == 1, "the source knows of its damage"
    two.source.push(two.tree, "model")
    two.sink.json("pull", pushed["repo"])
    assert_published(two.sink.gateway, pushed["repo"], "main", wanted)


def test_a_full_disk_ends_the_pull_and_not_the_node(folder, rng, small_disk):  # noqa: F811
    visible, inner, prefix = small_disk
    two = Two(folder, rng, large=(8 * MIB,), small=4)
    two.sink = Cairn(inner / "sink", prefix, peers=[two.source])
    two.sink.log = folder / "sink.log"
    # As it is by default: a tenth of the disk stays free.
    two.sink.environment.pop("CAIRN_CACHE_SIZE")
    try:
        two.up()
        fits = two.publish("fits")
        two.sink.json("pull", fits["repo"])
        content = fingerprint(two.tree)
        two.tree = sample(folder / "large", rng, large=(SIZE + 40 * MIB,))
        large = two.publish("large")
        failed = two.sink.run("pull", large["repo"])
        assert failed.returncode == 1, failed.stdout
        assert "space" in failed.stderr and "hint:" in failed.stderr, failed.stderr
        assert two.sink.process.poll() is None, two.sink.logged()
        assert_published(two.sink.gateway, fits["repo"], fits["commit"], content)
        path = two.sink.gateway.file_path(large["repo"], "main", "weights-00.safetensors")
        answer = two.sink.gateway.get(path)
        assert answer.status == 507, f"{answer.status} {answer.body[:300]!r}"
        # Not for the cache: it may take all of the disk, which is still too small.
        two.sink.json("pin", large["repo"])
        failed = two.sink.run("pull", large["repo"])
        assert failed.returncode == 1, failed.stdout
        assert "no space left" in failed.stderr and "hint:" in failed.stderr, failed.stderr
        answer = two.sink.gateway.get(path)
        assert answer.status == 507, f"{answer.status} {answer.body[:300]!r}"
        assert "panicked" not in two.sink.logged()
        small = two.sink.gateway.file(large["repo"], "main", "config.json")
        assert small.status == 200
    finally:
        two.close()


def test_what_nobody_has_is_said_so(two):
    pushed = two.publish("model")
    assert two.source.stop() == 0
    path = two.sink.gateway.file_path(pushed["repo"], "main", "weights-00.safetensors")
    # Where its tensors stand was read when it was listed: that much is sent, and then the answer ends.
    with pytest.raises(http.client.IncompleteRead) as short:
        two.sink.gateway.get(path)
    begun = len(short.value.partial)
    assert 0 < begun < 24 * MIB
    answer = two.sink.gateway.get(path, {"Range": f"bytes={begun}-"})
    assert answer.status == 503, f"{answer.status} {answer.body[:300]!r}"
    assert answer.json()["error"] and answer.headers["Retry-After"], answer.body
    failed = two.sink.run("pull", pushed["repo"], seconds=120)
    assert failed.returncode == 1 and "hint:" in failed.stderr, failed.stderr
    failed = two.sink.run("pull", "nobody/nothing", seconds=120)
    assert failed.returncode == 1 and "not found" in failed.stderr, failed.stderr
