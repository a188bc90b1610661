"""Many who publish at once lose nothing of each other's, and the same bytes are kept, and sent, once."""

import random
import threading

import pytest

from folders import MIB, file_sha256, write_random
from hub import Client, ClientProcess, Hub, JsClient, Refused, Wire, account, inline, lfs, server_errors

STALE = "The branch was updated since you opened this page. Please refresh and try again."
# Tries of a writer that names the parent it has seen.
TRIES_MAX = 500


def together(*works):
    """Runs all at once, to their end; raises what one of them raised."""
    wrong = []

    def run(work):
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


class Writers:
    """Writers of one branch; each commit of each adds files that no other one touches."""

    def __init__(self, cairn, folder, count: int):
        self.cairn = cairn
        self.folder = folder
        self.count = count
        self.ada, self.bob = account(cairn, "ada"), account(cairn, "bob")
        self.repo = Hub(cairn.gateway, self.ada).create("shared")
        cairn.json("admin", "grant", self.repo, "bob", "write")
        self.answers = []
        self.pushed = []

    def by_http(self, name: str, who, is_strict: bool):
        """Commits by plain HTTP; with the parent it has seen, and then until it is the first."""
        hub = Hub(self.cairn.gateway, who)
        for number in range(self.count):
            path = f"{name}/{number}.txt"
            line = inline(path, f"{name} wrote {number}".encode())
            for _ in range(TRIES_MAX):
                try:
                    parent = hub.head(self.repo) if is_strict else None
                    commit = hub.commit(self.repo, [line], parent=parent)
                    self.answers.append({"status": 200, "commit": commit, "path": path})
                    break
                except Refused as refused:
                    text = refused.answer.body.decode()
                    self.answers.append({"status": refused.status, "text": text})
                    if refused.status != 412 or not is_strict:
                        raise
            else:
                raise AssertionError(f"{name} was never the first in {TRIES_MAX} tries")

    def by_client(self, client: ClientProcess, names: list, is_strict: bool):
        """Commits with a client of the hub's, several writers of it at once."""
        found = client.call(
            "writers", repo=self.repo, names=names, count=self.count, is_strict=is_strict
        )
        self.answers += found

    def by_push(self, count: int):
        """Pushes a folder to another branch: a push replaces all that a branch holds."""
        source = self.folder / "pushed"
        source.mkdir(exist_ok=True)
        for _ in range(count):
            (source / "number.txt").write_text(f"{len(self.pushed)}")
            self.pushed.append(self.cairn.push(source, self.repo, "--ref", "side")["commit"])


def test_sixteen_writers_of_one_branch_lose_nothing(cairn, folder, long):
    cairn.up()
    writers = Writers(cairn, folder, 20 if long else 4)
    ada, bob = writers.ada, writers.bob
    with (
        Client(cairn.gateway.url, ada, folder / "ada") as loose,
        Client(cairn.gateway.url, bob, folder / "bob") as strict,
        JsClient(cairn.gateway.url, bob, folder / "js-loose") as js_loose,
        JsClient(cairn.gateway.url, ada, folder / "js-strict") as js_strict,
    ):
        # All are there before anything begins.
        for client in (loose, strict):
            assert client.call("repo_exists", repo_id=writers.repo) == "True"
        for client in (js_loose, js_strict):
            assert client.call("repoExists", repo=writers.repo) is True
        # A new branch goes out from `main`, and is refused where that moves meanwhile.
        writers.by_push(1)
        together(
            lambda: writers.by_client(loose, [f"loose-{n}" for n in range(4)], False),
            lambda: writers.by_client(strict, [f"strict-{n}" for n in range(4)], True),
            lambda: writers.by_client(js_loose, ["js-loose-0", "js-loose-1"], False),
            lambda: writers.by_client(js_strict, ["js-strict-0", "js-strict-1"], True),
            *(lambda n=n: writers.by_http(f"http-loose-{n}", (ada, bob)[n], False) for n in range(2)),
            *(lambda n=n: writers.by_http(f"http-strict-{n}", (ada, bob)[n], True) for n in range(2)),
            lambda: writers.by_push(writers.count),
        )
        status = [answer["status"] for answer in writers.answers]
        print({code: status.count(code) for code in set(status)})
        strange = [answer for answer in writers.answers if answer["status"] not in (200, 412)]
        assert strange == [], strange[0]
        for answer in writers.answers:
            assert answer["status"] == 200 or STALE in answer["text"], answer
        done = [answer for answer in writers.answers if answer["status"] == 200]
        assert len(done) == 16 * writers.count
        history = cairn.gateway.commits(writers.repo)
        assert len(set(history)) == len(history)
        acknowledged = {answer["commit"] for answer in done}
        assert len(acknowledged) == len(done), "two writers were given the same commit"
        # Beside the commit that a new repository begins with.
        assert acknowledged == set(history[:-1])
        shown = {entry["path"] for entry in cairn.gateway.tree(writers.repo, "main")}
        for answer in done:
            path = answer["path"]
            assert path in shown, f"{path} is lost"
            got = cairn.gateway.get(cairn.gateway.file_path(writers.repo, "main", path))
            name, number = path.removesuffix(".txt").split("/")
            assert got.body.decode() == f"{name} wrote {number}"
        side = cairn.gateway.commits(writers.repo, "side")
        assert [commit for commit in reversed(side) if commit in writers.pushed] == writers.pushed
        # Whoever saw anything but the newest is told so.
        hub = Hub(cairn.gateway, ada)
        for stale in (history[1], history[-1], "0" * 40):
            with pytest.raises(Refused) as refused:
                hub.commit(writers.repo, [inline("late.txt", b"late")], parent=stale)
            assert refused.value.status == 412, refused.value
            assert refused.value.answer.headers["X-Error-Message"] == STALE
        answer = loose.commit_answer(writers.repo, ("text", "late.txt", "late"), parent_commit=history[1])
        assert answer.get("status") == 412, answer
        assert loose.commit(writers.repo, ("text", "late.txt", "late"), parent_commit=history[0])
    assert len(cairn.gateway.commits(writers.repo)) == len(history) + 1
    assert server_errors(cairn.gateway) == {}
    assert cairn.run("verify").returncode == 0


def stored_bytes(cairn) -> int:
    """Bytes of the disk that everything below the data folder takes, the views aside."""
    return sum(
        path.stat().st_blocks * 512
        for path in cairn.data.rglob("*")
        if path.is_file() and not path.is_relative_to(cairn.data / "views")
    )


def test_the_same_file_sent_by_eight_at_once_is_kept_once(cairn, folder, rng):
    cairn.up()
    accounts = [account(cairn, "ada"), account(cairn, "bob")]
    source = folder / "weights.safetensors"
    size = 100_000_000
    write_random(source, rng, size)
    sha256 = file_sha256(source)
    hubs = [Hub(cairn.gateway, accounts[number % 2]) for number in range(8)]
    repos = [hub.create(f"model-{number}") for number, hub in enumerate(hubs)]
    by_client = range(4)
    clients = [
        Client(cairn.gateway.url, hubs[number].who, folder / f"home-{number}") for number in by_client
    ]
    try:
        for client, repo in zip(clients, repos[:4], strict=True):
            assert client.call("repo_exists", repo_id=repo) == "True"
        before = stored_bytes(cairn)

        def by_xet(number):
            clients[number].commit(repos[number], ("add", source.name, str(source)))

        def by_lfs(number):
            hubs[number].upload(repos[number], source)
            hubs[number].commit(repos[number], [lfs(source.name, source)])

        together(*(
            lambda number=number: (by_xet if number in by_client else by_lfs)(number)
            for number in range(8)
        ))
    finally:
        for client in clients:
            client.kill()
    kept = [path for path in cairn.blob_paths() if path.stat().st_size == size]
    assert len(kept) == 1 and file_sha256(kept[0]) == sha256, kept
    blobs = sum(path.stat().st_size for path in cairn.blob_paths())
    assert blobs < size * 1.01, f"{blobs} bytes of blobs for {size}"
    for repo in repos:
        got = cairn.gateway.file(repo, "main", source.name)
        assert (got.status, got.sha256) == (200, sha256), repo
    assert server_errors(cairn.gateway) == {}
    assert cairn.run("verify").returncode == 0
    # Nor does what it came in stay anywhere else.
    taken = stored_bytes(cairn) - before
    print(f"{taken} bytes of the disk for a file of {size}")
    assert taken < size * 1.1, f"{taken} bytes of the disk for a file of {size}"


def test_what_comes_again_by_another_account_stays_once(cairn, folder, rng):
    """Who may not read the first one's repository sends all of it; of that nothing stays."""
    cairn.up()
    ada, bob = account(cairn, "ada"), account(cairn, "bob")
    source = folder / "weights.safetensors"
    size = 40_000_000
    write_random(source, rng, size)
    before = stored_bytes(cairn)
    taken = {}
    for who, is_private in ((ada, True), (bob, False)):
        repo = Hub(cairn.gateway, who).create("model", private=is_private)
        with Wire(cairn.gateway) as wire, Client(wire.url, who, folder / who.name) as client:
            client.commit(repo, ("add", source.name, str(source)))
            assert wire.taken() >= size, f"{who.name} has sent all of it"
        taken[who.name] = stored_bytes(cairn) - before
    print(f"{taken} bytes of the disk for a file of {size}")
    assert cairn.gateway.file("bob/model", "main", source.name).sha256 == file_sha256(source)
    assert cairn.gateway.absent("ada/model")
    assert len([path for path in cairn.blob_paths() if path.stat().st_size == size]) == 1
    assert taken["ada"] < size * 1.1 and taken["bob"] < size * 1.1, taken


def change(path, rng: random.Random, share: float):
    """Changes a share of a file's bytes in four places, none of them at its very beginning."""
    size = path.stat().st_size
    length = int(size * share / 4)
    with open(path, "r+b") as file:
        for quarter in range(4):
            start = quarter * size // 4
            file.seek(rng.randrange(start + 4 * MIB, start + size // 4 - length))
            file.write(rng.randbytes(length))


def test_of_a_changed_file_only_the_change_is_sent(cairn, folder, rng, long):
    """Through xet; by a client that has sent the file before, and by one that knows nothing."""
    cairn.up()
    ada = account(cairn, "ada")
    repo = Hub(cairn.gateway, ada).create("model")
    source = folder / "weights.safetensors"
    size = (500 if long else 200) * 1_000_000
    write_random(source, rng, size)
    with Wire(cairn.gateway) as wire:

        def send(home: str) -> float:
            """Publishes the file as it is now; returns the share of its bytes that was sent."""
            with Client(wire.url, ada, folder / home) as client:
                wire.taken()
                client.commit(repo, ("add", source.name, str(source)))
            share = wire.taken() / size
            got = cairn.gateway.file(repo, "main", source.name)
            assert (got.status, got.sha256) == (200, file_sha256(source)), home
            return share

        shares = {"first": send("warm")}
        change(source, rng, 0.02)
        shares["fresh"] = send("fresh")
        change(source, rng, 0.02)
        shares["warm"] = send("warm")
        shares["unchanged"] = send("another")
    print(", ".join(f"{name}: {share:.2%}" for name, share in shares.items()))
    assert 1 <= shares["first"] < 1.05, "the wire counts what is sent"
    assert 0.02 <= shares["fresh"] < 0.05, shares
    # It does not know what the other one changed.
    assert 0.02 <= shares["warm"] < 0.05, shares
    assert shares["unchanged"] < 0.01, shares
    assert server_errors(cairn.gateway) == {}
