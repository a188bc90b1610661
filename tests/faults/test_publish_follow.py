"""What accounts publish on one node is what another shows that follows it; what is private it never has."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cairn import Cairn, Failed, wait_for
from folders import MIB, assert_published, file_sha256, sample, write_file, write_random
from hub import Account, Client, Hub, JsClient, account, inline, lfs, requests
from two_nodes import CONNECT_SECONDS

# Until the second node has followed: it hears of each change, and asks now and then what it has missed.
FOLLOW_SECONDS = 60
# Each kind of repository: its name in a tree's paths of the API, and what stands before its files' URLs.
KINDS = {"model": ("models", ""), "dataset": ("datasets", "datasets/"), "space": ("spaces", "spaces/")}


class Pair:
    """A node that two accounts publish on, one with xet and one without, and a node that follows it."""

    def __init__(self, folder):
        self.folder = folder
        self.source = Cairn(folder / "source")
        self.sink = Cairn(folder / "sink", peers=[self.source])
        self.source.up()
        self.sink.up()
        for node in (self.sink, self.source):
            wait_for(lambda node=node: node.json("peers")["peers"], CONNECT_SECONDS, "a peer is there")
        self.ada, self.bob = account(self.source, "ada"), account(self.source, "bob")
        self.by_ada = self.client(self.ada, True)
        self.by_bob = self.client(self.bob, False)
        self.markers = 0

    def client(self, who: Account, xet: bool) -> Client:
        return Client(self.source.gateway.url, who, self.folder / f"home-{who.name}", xet)

    def js_client(self, who: Account) -> JsClient:
        return JsClient(self.source.gateway.url, who, self.folder / f"home-js-{who.name}")

    def close(self):
        """Ends everything."""
        for ends in (self.by_ada.kill, self.by_bob.kill, self.sink.close, self.source.close):
            ends()

    def binary(self, name: str, rng, size: int):
        """A local file of random bytes."""
        path = self.folder / "files" / name
        write_random(path, rng, size)
        return str(path)

    def abroad(self, repo: str) -> str:
        """What another node calls a repository of an account."""
        name, _, rest = repo.partition("/")
        known = {who.name: who.namespace for who in (self.ada, self.bob)}
        return f"{known.get(name, name)}/{rest}"

    def shown(self, node: Cairn) -> dict:
        """Where all refs of all repositories stand, as a node's gateway says: (kind, name) → refs."""
        found = {}
        for kind, (plural, _) in KINDS.items():
            for repo in node.gateway.listed(plural):
                refs = node.gateway.json(f"/api/{plural}/{repo}/refs")
                found[kind, self.abroad(repo)] = {
                    ref["ref"]: ref["targetCommit"] for ref in refs["branches"] + refs["tags"]
                }
        return found

    def follows(self):
        """Waits until both nodes show the same."""
        try:
            is_same = lambda: self.shown(self.source) == self.shown(self.sink)  # noqa: E731
            wait_for(is_same, FOLLOW_SECONDS, "it follows")
        except AssertionError:
            here, there = self.shown(self.source), self.shown(self.sink)
            differs = {name for name in here | there if here.get(name) != there.get(name)}
            raise AssertionError(
                "the second node shows other refs: "
                + "; ".join(f"{name}: {here.get(name)}, not {there.get(name)}" for name in differs)
                + f"; its log: {self.sink.logged()}"
            ) from None

    def marks(self):
        """Publishes something more, and waits until the second node shows that."""
        self.markers += 1
        name = f"marker-{self.markers}"
        self.by_bob.call("create_repo", repo_id=f"bob/{name}")
        commit = self.by_bob.commit(f"bob/{name}", ("text", "a.txt", name))
        path = f"/api/models/{self.bob.namespace}/{name}/revision/{commit}"
        wait_for(lambda: self.sink.gateway.get(path).status == 200, FOLLOW_SECONDS, f"{path} is shown")


@pytest.fixture
def pair(folder):
    made = Pair(folder)
    yield made
    made.close()


def files(gateway, repo: str, revision: str, kind: str) -> dict:
    """What a tree lists, without what only its home knows."""
    plural, _ = KINDS[kind]
    return {
        entry["path"]: (entry["type"], entry["oid"], entry["size"], entry.get("lfs", {}).get("oid"))
        for entry in gateway.tree(repo, revision, plural)
    }


def assert_equal(pair: Pair):
    """Both nodes show the same commits of the same refs, and the same bytes."""
    here, there = pair.source.gateway, pair.sink.gateway
    checked = 0
    for (kind, repo), refs in pair.shown(pair.source).items():
        plural, prefix = KINDS[kind]
        revisions = set()
        for reference in refs:
            short = reference.removeprefix("refs/heads/").removeprefix("refs/tags/")
            history = here.commits(repo, short, plural)
            assert there.commits(repo, short, plural) == history, f"{short} of {repo}"
            revisions |= set(history)
        for revision in revisions:
            listed = files(here, repo, revision, kind)
            assert files(there, repo, revision, kind) == listed, f"{revision} of {repo}"
            for path, (what, _, size, oid) in listed.items():
                if what != "file":
                    continue
                got = there.file(repo, revision, path, prefix)
                same = here.file(repo, revision, path, prefix)
                assert (got.status, got.sha256, got.size) == (200, same.sha256, size), f"{path} of {repo}"
                assert oid in (None, got.sha256)
                checked += 1
    return checked


def xet_downloads(pair: Pair, repo: str) -> int:
    """Fetches each file that was sent through Xet from the second node that way; how many there are."""
    gateway, count = pair.sink.gateway, 0
    with Client(gateway.url, pair.ada, pair.folder / "home-reader") as reader:
        for entry in pair.source.gateway.tree(repo, "main"):
            if "xetHash" not in entry:
                continue
            path, sha256 = entry["path"], entry["lfs"]["oid"]
            # The node learns of what chunks a file is made while nobody waits for it.
            url = gateway.file_path(repo, "main", path)
            wait_for(
                lambda url=url: gateway.request("HEAD", url).headers["X-Xet-Hash"],
                FOLLOW_SECONDS,
                f"{path} is offered through Xet",
            )
            asked = requests(gateway, "xet")
            got = reader.call("hf_hub_download", repo_id=repo, filename=path)
            assert file_sha256(got) == sha256, path
            assert requests(gateway, "xet") > asked, f"{path} came another way"
            count += 1
    return count


@pytest.fixture
def js(pair):
    """Bob once more, with the hub's JavaScript client."""
    with pair.js_client(pair.bob) as made:
        yield made


def test_a_second_node_shows_what_two_accounts_do(pair, js, folder, rng):
    ada, bob, source = pair.by_ada, pair.by_bob, pair.source
    hub = Hub(source.gateway, pair.ada)
    one, data, two = "ada/one", "ada/data", "bob/two"
    ada.call("create_repo", repo_id=one)
    ada.call("create_repo", repo_id=data, repo_type="dataset")
    bob.call("create_repo", repo_id=two)
    source.json("admin", "grant", one, "bob", "write")
    source.json("admin", "grant", two, "ada", "write")
    # In turn, each with its own way of sending large files.
    first = ada.commit(
        one,
        ("text", "README.md", "---\nlicense: mit\n---\n# One\n"),
        ("add", "weights.safetensors", pair.binary("a", rng, 3 * MIB)),
        ("text", "old/a.txt", "a"),
        ("text", "old/b.txt", "b"),
    )
    for turn in range(3):
        size = rng.randrange(70_000, 2 * MIB)
        bob.commit(one, ("add", f"bob-{turn}.bin", pair.binary(f"b{turn}", rng, size)))
        ada.commit(one, ("add", f"ada-{turn}.bin", pair.binary(f"c{turn}", rng, size)))
        bob.commit(two, ("text", "notes.txt", f"{turn}"), ("add", "w.bin", pair.binary("d", rng, size)))
        ada.commit(two, ("text", "notes.txt", f"{turn} and ada"))
        ada.commit(data, ("add", f"rows-{turn}.parquet", pair.binary("e", rng, size)), kind="dataset")
        sent = [("add", f"js-{turn}.bin", pair.binary("f", rng, size)), ("text", "js.txt", f"{turn}")]
        js.call("uploadFiles", repo=one, files=sent, commitTitle=f"Turn {turn}")
        js.call("uploadFiles", repo=two, files=sent)
    # By plain HTTP, too.
    raw = folder / "raw.bin"
    write_random(raw, rng, 200_000)
    hub.upload(one, raw)
    hub.commit(one, [lfs("raw.bin", raw), inline("raw.txt", b"raw")])
    # The operator pushes to a branch of an account's, over its default branch, and what is its own.
    tree = sample(folder / "tree", rng, large=(2 * MIB,), small=3)
    source.push(tree, one, "--ref", "pushed")
    source.push(tree, two)
    source.push(tree, "own")
    ada.call("create_tag", repo_id=one, tag="v1")
    ada.call("create_tag", repo_id=one, tag="v0", revision=first)
    pair.follows()
    # What was there changes and goes.
    bob.commit(one, ("delete", "bob-0.bin"), ("delete", "old/"), ("text", "README.md", "# Later\n"))
    late = pair.binary("late", rng, 3 * MIB)
    changes = [("add", "late.bin", late), ("text", "js.txt", "later"), ("delete", "js-0.bin")]
    by_js = js.call("commit", repo=one, title="Some come, one goes", operations=changes)
    js.call("deleteFiles", repo=one, paths=["js-1.bin", "bob-1.bin"])
    ada.call("create_branch", repo_id=one, branch="dev/two", revision="v0")
    ada.call("create_branch", repo_id=one, branch="gone")
    ada.commit(one, ("text", "dev.txt", "dev"), revision="dev/two")
    ada.call("move_repo", from_id=data, to_id="ada/renamed", repo_type="dataset")
    ada.commit("ada/renamed", ("text", "after.txt", "renamed"), kind="dataset")
    bob.call("super_squash_history", repo_id=two, commit_message="All in one")
    bob.commit(two, ("text", "after.txt", "squashed"))
    ada.call("delete_branch", repo_id=one, branch="gone")
    ada.call("delete_tag", repo_id=one, tag="v1")
    ada.call("create_tag", repo_id=one, tag="v2")
    # An earlier revision comes back: as files of a new commit, and as where the branch stands.
    ada.commit(
        one,
        ("copy", "weights.safetensors", "weights.safetensors", first),
        ("copy", "restored/a.txt", "old/a.txt", first),
    )
    back = {"startingPoint": first, "overwrite": True}
    hub.json("POST", f"/api/models/{one}/branch/dev%2Ftwo", back)
    assert hub.json("GET", f"/api/models/{one}/revision/dev%2Ftwo")["sha"] == first
    pair.follows()
    checked = assert_equal(pair)
    print(f"{checked} files of all commits are equal")
    abroad = f"{pair.ada.namespace}/one"
    got = pair.sink.gateway.file(abroad, by_js, "late.bin")
    assert (got.status, got.sha256) == (200, file_sha256(late)), got.status
    left = set(files(pair.sink.gateway, abroad, "main", "model"))
    assert left >= {"late.bin", "js.txt", "js-2.bin", "bob-2.bin"}, left
    assert not left & {"js-0.bin", "js-1.bin", "bob-0.bin", "bob-1.bin", "old/a.txt"}, left
    shown = pair.shown(pair.sink)
    assert ("dataset", f"{pair.ada.namespace}/renamed") in shown, shown
    assert ("dataset", f"{pair.ada.namespace}/data") not in shown, shown
    old = pair.sink.gateway.get(f"/api/datasets/{pair.ada.namespace}/data")
    assert old.status == 307 and old.headers["Location"].endswith("/renamed"), old.status
    for kind, repo in shown:
        pair.sink.json("pull", f"{KINDS[kind][1]}{repo}")
    assert xet_downloads(pair, abroad) == 4
    for node in (pair.sink, pair.source):
        verified = node.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"


def without(text: str, name: str) -> str:
    """What is said of a repository, whatever its name."""
    return text.replace(name, "NAME")


def assert_hidden(pair: Pair, name: str, secrets, revisions=()):
    """The second node has nothing of a repository, and speaks of it as of one that never was."""
    sink, gateway = pair.sink, pair.sink.gateway
    assert name not in sink.run("ls").stdout and name not in sink.run("ls", "--json").stdout
    namespace = pair.ada.namespace
    for plural, prefix in KINDS.values():
        assert not [repo for repo in gateway.listed(plural) if name in repo]
        for path in (
            "/api/{plural}/{repo}",
            "/api/{plural}/{repo}/revision/main",
            "/api/{plural}/{repo}/tree/main",
            "/api/{plural}/{repo}/commits/main",
            "/api/{plural}/{repo}/refs",
            "/{prefix}{repo}/resolve/main/a.txt",
            *(f"/{{prefix}}{{repo}}/resolve/{revision}/a.txt" for revision in revisions),
        ):
            answers = []
            for asked in (name, "never-was"):
                repo = f"{namespace}/{asked}"
                answer = gateway.get(path.format(plural=plural, prefix=prefix, repo=repo))
                code = answer.headers["X-Error-Code"]
                answers.append((answer.status, code, without(answer.body.decode(), asked)))
            assert answers[0] == answers[1], path
            assert answers[0][1] == "RepoNotFound", answers
    for path in sink.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [secret for secret in (name, *secrets) if secret.encode() in content]
            assert not found, f"{path} has {found}"


def assert_not_pulled(pair: Pair, name: str, revisions):
    """`cairn pull` says of a repository what it says of one that never was, by every name it could have."""
    wanted = [
        (of, revision)
        for of in (pair.ada.namespace, "ada")
        for revision in ("", "@main", *(f"@{revision}" for revision in revisions))
    ]

    def told(of, revision, asked):
        # Peers are asked for a while before it says so.
        done = pair.sink.run("pull", f"{of}/{asked}{revision}", "--peer", pair.source.address)
        return done.returncode, done.stdout, without(done.stderr, asked)

    with ThreadPoolExecutor(2 * len(wanted)) as pool:
        hidden, never = (
            [pool.submit(told, of, revision, asked) for of, revision in wanted]
            for asked in (name, "never-was")
        )
    for (of, revision), first, second in zip(wanted, hidden, never, strict=True):
        assert first.result() == second.result(), f"{of}/{name}{revision}"
        assert first.result()[0] == 1, first.result()


def test_a_private_repository_is_never_on_a_second_node(pair, folder, rng):
    ada = pair.by_ada
    name = "hidden-name"
    repo = f"ada/{name}"
    words = [f"secret-{rng.getrandbits(64):x}" for _ in range(3)]
    ada.call("create_repo", repo_id=repo, private=True)
    # Large, small, and in what the repository says of itself.
    large = folder / "large.bin"
    write_file(large, words[0].encode() + rng.randbytes(MIB))
    first = ada.commit(
        repo,
        ("add", "large.bin", str(large)),
        ("text", "a.txt", words[1]),
        ("text", "README.md", f"---\nlicense: mit\n---\n# {words[2]}\n"),
    )
    pair.marks()
    assert_hidden(pair, name, words, [first])
    ada.call("create_tag", repo_id=repo, tag=f"tag-{words[1]}")
    second = ada.commit(repo, ("text", "a.txt", f"{words[1]} again"), ("delete", "README.md"))
    ada.call("super_squash_history", repo_id=repo, branch="main")
    pair.marks()
    assert_hidden(pair, name, words, [first, second])
    assert_not_pulled(pair, name, [first, second])
    assert_hidden(pair, name, words)

    # Shown to everybody.
    ada.call("update_repo_settings", repo_id=repo, private=False)
    pair.follows()
    assert ("model", f"{pair.ada.namespace}/{name}") in pair.shown(pair.sink)
    assert_equal(pair)
    pulled = pair.sink.json("pull", f"{pair.ada.namespace}/{name}", "--to", str(folder / "pulled"))
    assert pulled and file_sha256(folder / "pulled/large.bin") == file_sha256(large)
    public = Hub(pair.source.gateway, pair.ada).head(repo)

    # Hidden again: what comes from now on stays here.
    ada.call("update_repo_settings", repo_id=repo, private=True)
    later = f"secret-{rng.getrandbits(64):x}"
    write_file(large, later.encode() + rng.randbytes(MIB))
    third = ada.commit(repo, ("add", "later.bin", str(large)), ("text", "later.txt", later))
    assert third != public
    pair.marks()
    gateway, abroad = pair.sink.gateway, f"{pair.ada.namespace}/{name}"
    answer = gateway.get(f"/api/models/{abroad}/revision/{third}")
    assert answer.status in (401, 404), answer.status
    head = gateway.get(f"/api/models/{abroad}")
    assert head.status in (401, 404) or head.json()["sha"] == public
    for path in ("later.bin", "later.txt"):
        for revision in (third, "main"):
            got = gateway.file(abroad, revision, path)
            assert got.status in (401, 404), f"{path} at {revision}"
    with pytest.raises(Failed):
        pair.sink.json("pull", f"{abroad}@{third}", "--peer", pair.source.address)
    for path in pair.sink.data.rglob("*"):
        if path.is_file():
            assert later.encode() not in path.read_bytes(), path
    # Who has no account sees none of it on the first node either.
    assert pair.source.gateway.absent(repo)

    ada.call("update_repo_settings", repo_id=repo, private=False)
    path = f"/api/models/{abroad}/revision/{third}"
    wait_for(lambda: gateway.get(path).status == 200, FOLLOW_SECONDS, "it is shown again")
    assert gateway.commits(abroad) == pair.source.gateway.commits(repo)
    assert_published(
        pair.sink.gateway,
        abroad,
        third,
        {"later.bin": file_sha256(large)}
        | {
            path: pair.source.gateway.file(repo, third, path).sha256
            for path in ("a.txt", "large.bin", "later.txt")
        },
    )
    verified = pair.sink.run("verify", "--json")
    assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"


def test_what_is_deleted_or_hidden_goes_from_the_second_node(pair):
    ada = pair.by_ada
    gateway, namespace = pair.sink.gateway, pair.ada.namespace
    names = ("deleted", "hidden", "stays")
    for name in names:
        ada.call("create_repo", repo_id=f"ada/{name}")
        ada.commit(f"ada/{name}", ("text", "a.txt", name))
    pair.follows()
    ada.call("delete_repo", repo_id="ada/deleted")
    ada.call("update_repo_settings", repo_id="ada/hidden", private=True)
    pair.marks()
    for name in ("deleted", "hidden"):
        repo = f"{namespace}/{name}"
        wait_for(lambda repo=repo: gateway.absent(repo), FOLLOW_SECONDS, f"{name} goes")
    kept = [f"{namespace}/stays", f"{pair.bob.namespace}/marker-1"]
    assert sorted(pair.abroad(repo) for repo in pair.source.gateway.listed()) == sorted(kept)
    assert sorted(gateway.listed()) == sorted(kept)
    assert sorted(shown["repo"] for shown in pair.sink.json("ls")["repositories"]) == sorted(kept)


def test_the_name_of_what_is_deleted_can_be_taken_again(pair):
    ada, gateway = pair.by_ada, pair.sink.gateway
    repo = f"{pair.ada.namespace}/again"
    for number in range(3):
        ada.call("create_repo", repo_id="ada/again")
        commit = ada.commit("ada/again", ("text", f"{number}.txt", f"{number}"))
        path = f"/api/models/{repo}/revision/{commit}"
        wait_for(lambda path=path: gateway.get(path).status == 200, FOLLOW_SECONDS, f"{path} is shown")
        shown = files(gateway, repo, "main", "model")
        assert set(shown) == {".gitattributes", f"{number}.txt"}
        assert gateway.commits(repo) == pair.source.gateway.commits("ada/again")
        ada.call("delete_repo", repo_id="ada/again")
        wait_for(lambda: gateway.absent(repo), FOLLOW_SECONDS, "it goes")
    for node in (pair.sink, pair.source):
        verified = node.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
