"""`cairn backup` while the node serves, and what `cairn restore` makes of it after the node is gone."""

import json
import shutil
import threading

import pytest

from cairn import Cairn, Failed, wait_for
from folders import MIB, file_sha256, write_random
from hub import Hub, Refused, account, inline, lfs
from two_nodes import CONNECT_SECONDS

# Until a restored node has compared what it has with a peer, and fetched what it had not.
CATCH_UP_SECONDS = 60
LARGE_BYTES = 3 * MIB


@pytest.fixture
def node(folder):
    """A node that two accounts publish on."""
    node = Cairn(folder / "node")
    node.up()
    yield node
    node.close()


def restored(folder, backup, *options, name="restored", peers=()) -> Cairn:
    """A node on a data folder that a backup became."""
    node = Cairn(folder / name, peers=peers)
    node.json("restore", backup, *options)
    node.up()
    return node


def large(folder, name: str, rng, size=LARGE_BYTES):
    """A local file of noise."""
    path = folder / "files" / name
    write_random(path, rng, size)
    return path


def test_all_that_was_acknowledged_before_a_backup_is_in_it(node, folder, rng):
    ada, bob = account(node, "ada"), account(node, "bob")
    hub = Hub(node.gateway, ada)
    files = [large(folder, f"{number}.bin", rng) for number in range(3)]
    repo, hidden = hub.create("public"), hub.create("hidden", private=True)
    for target, source in ((repo, files[0]), (hidden, files[1])):
        hub.upload(target, source)
        hub.commit(target, [lfs("weights.bin", source), inline("config.json", b"{}")])
    # Sent, and not committed yet.
    hub.upload(repo, files[2])
    tagged = hub.head(repo)
    hub.json("POST", f"/api/models/{repo}/tag/main", {"tag": "v1"})
    revoked = node.json("admin", "token", "create", "--user", "bob", "--scope", "read")["id"]
    node.json("admin", "token", "revoke", "--user", "bob", revoked)

    # Somebody publishes all the while.
    stop, acknowledged = threading.Event(), []
    other = Hub(node.gateway, bob)
    busy = other.create("busy")

    def publish():
        while not stop.is_set():
            number = len(acknowledged)
            acknowledged.append(other.commit(busy, [inline("n.txt", b"%d" % number)]))

    writer = threading.Thread(target=publish)
    writer.start()
    wait_for(lambda: len(acknowledged) > 3, 30, "the writer commits")
    before = list(acknowledged)
    report = node.json("backup", folder / "backup")
    stop.set()
    writer.join()
    assert (report["blobs"], report["damaged"]) == (3, [])
    node.kill()
    shutil.rmtree(node.data)

    again = restored(folder, folder / "backup", "--newest")
    try:
        hub, other = Hub(again.gateway, ada), Hub(again.gateway, bob)
        assert (hub.head(repo), hub.json("GET", f"/api/models/{repo}/revision/v1")["sha"]) == (
            tagged,
            tagged,
        )
        wanted = {"weights.bin": file_sha256(files[0])}
        for path, sha256 in wanted.items():
            assert again.gateway.file(repo, tagged, path).sha256 == sha256
        assert again.gateway.absent(hidden)
        assert hub.request("GET", f"/{hidden}/resolve/main/config.json").body == b"{}"
        assert hub.asked(repo, files[2]) is None, "what waits for its commit is there"
        hub.commit(repo, [lfs("late.bin", files[2])])
        listed = again.gateway.commits(busy)
        assert set(before) <= set(listed)
        assert other.commit(busy, [inline("after.txt", b"after")])
        tokens = again.json("admin", "token", "list", "--user", "bob")["tokens"]
        assert len(tokens) == 1
        verified = again.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
    finally:
        again.close()


def test_what_becomes_private_while_it_is_copied_stays_so(node, folder, rng):
    """A live copy has no one instant: what it has of a private namespace comes with the word that it is private."""
    # Something to copy, so that it takes a while.
    ada = account(node, "ada")
    hub = Hub(node.gateway, ada)
    repo = hub.create("public")
    for number in range(40):
        hub.commit(repo, [inline(f"{number}.bin", rng.randbytes(700_000))])
    people = [account(node, f"user-{number}") for number in range(60)]
    made, stop = [], threading.Event()

    def publish():
        for who in people:
            if stop.is_set():
                return
            other = Hub(node.gateway, who)
            hidden = other.create("secret", private=True)
            other.commit(hidden, [inline("s.txt", b"secret")])
            made.append(hidden)

    writer = threading.Thread(target=publish)
    writer.start()
    wait_for(lambda: made, 30, "the first one is private")
    node.json("backup", folder / "backup")
    count = len(made)
    stop.set()
    writer.join()
    assert count > 1, "none was made meanwhile"
    node.kill()
    again = restored(folder, folder / "backup", "--newest")
    try:
        listed = again.gateway.listed("models")
        assert listed == [f"{ada.namespace}/public"] or listed == ["ada/public"], listed
    finally:
        again.close()


def test_a_restored_home_signs_only_once_it_has_caught_up(node, folder, rng):
    ada = account(node, "ada")
    hub = Hub(node.gateway, ada)
    repo = hub.create("model")
    first = hub.commit(repo, [inline("a.txt", b"1")])
    node.json("backup", folder / "backup")
    later = hub.commit(repo, [inline("a.txt", b"2")])
    follower = Cairn(folder / "follower", peers=[node])
    follower.up()
    abroad = f"{ada.namespace}/model"
    path = f"/api/models/{abroad}/revision/{later}"
    wait_for(lambda: follower.gateway.get(path).status == 200, CONNECT_SECONDS, "it follows")
    follower.stop()
    node.kill()

    again = restored(folder, folder / "backup")
    try:
        hub = Hub(again.gateway, ada)
        assert hub.head(repo) == first
        with pytest.raises(Refused) as refused:
            hub.commit(repo, [inline("a.txt", b"3")])
        assert refused.value.status == 503
        assert "restored from a backup" in refused.value.answer.json()["error"]
        with pytest.raises(Failed, match="restored from a backup"):
            again.push(large(folder, "a.bin", rng).parent, "pushed")
        assert again.json("status")["restored"]

        follower.peers = [again]
        follower.up()
        wait_for(lambda: hub.head(repo) == later, CATCH_UP_SECONDS, "the later head is back")
        wait_for(lambda: not again.json("status")["restored"], CATCH_UP_SECONDS, "it signs again")
        third = hub.commit(repo, [inline("a.txt", b"3")])
        assert again.gateway.commits(repo)[:3] == [third, later, first]
        path = f"/api/models/{abroad}/revision/{third}"
        wait_for(lambda: follower.gateway.get(path).status == 200, CONNECT_SECONDS, "it follows")
    finally:
        again.close()
        follower.close()


def test_a_second_backup_copies_what_is_new_and_one_cut_off_changes_nothing(node, folder, rng):
    hub = Hub(node.gateway, account(node, "ada"))
    repo = hub.create("model")
    first, second = (large(folder, name, rng) for name in ("first.bin", "second.bin"))
    hub.upload(repo, first)
    kept = hub.commit(repo, [lfs("w.bin", first)])
    backup = folder / "backup"
    whole = node.json("backup", backup)
    assert whole["bytes"] == LARGE_BYTES < whole["copied_bytes"]
    hub.upload(repo, second)
    hub.commit(repo, [lfs("w.bin", second)])
    # Cut off before it is whole: what a crash leaves of the second one.
    shutil.copytree(backup / "state-1", backup / "state-2")
    (backup / "state-2" / "log" / "00000001.seg").write_bytes(b"torn")
    again = restored(folder, backup, "--newest", name="one")
    assert again.gateway.commits(repo)[0] == kept
    again.close()

    partial = node.json("backup", backup)
    assert partial["bytes"] == 2 * LARGE_BYTES
    assert LARGE_BYTES < partial["copied_bytes"] < 2 * LARGE_BYTES
    assert sorted(path.name for path in backup.iterdir()) == [
        "blobs",
        "cairn-backup.json",
        "lock",
        "state-2",
    ]


def test_what_is_damaged_or_in_the_way_is_named(node, folder, rng):
    hub = Hub(node.gateway, account(node, "ada"))
    repo = hub.create("model")
    sources = [large(folder, f"{number}.bin", rng) for number in range(2)]
    for source in sources:
        hub.upload(repo, source)
    commit = hub.commit(repo, [lfs(source.name, source) for source in sources])
    backup = folder / "backup"
    node.json("backup", backup)
    with pytest.raises(Failed, match="is in the data folder itself"):
        node.json("backup", node.data / "backup")
    with pytest.raises(Failed, match="is neither empty nor a backup"):
        node.json("backup", folder / "files")
    with pytest.raises(Failed, match="is not empty"):
        Cairn(folder / "files").json("restore", backup)
    with pytest.raises(Failed, match="there is no backup in"):
        Cairn(folder / "nothing").json("restore", folder / "missing")
    newer = json.loads((backup / "cairn-backup.json").read_text()) | {"format": 99}
    shutil.copytree(backup, folder / "newer")
    (folder / "newer" / "cairn-backup.json").write_text(json.dumps(newer))
    with pytest.raises(Failed, match="it has format 99"):
        Cairn(folder / "nothing").json("restore", folder / "newer")

    blobs = [path for path in (backup / "blobs").rglob("*") if path.is_file() and not path.suffix]
    changed = next(path for path in blobs if file_sha256(path) == file_sha256(sources[0]))
    content = bytearray(changed.read_bytes())
    content[1_000] ^= 1
    changed.write_bytes(content)
    again = Cairn(folder / "restored")
    with pytest.raises(Failed, match=f"1 damaged file left out: {changed.name}"):
        again.json("restore", backup, "--newest")
    again.up()
    try:
        assert again.gateway.file(repo, commit, sources[1].name).sha256 == file_sha256(sources[1])
        path = f"/{repo}/resolve/{commit}/{sources[0].name}"
        assert again.gateway.get(path).status >= 400, "never other bytes"
    finally:
        again.close()
