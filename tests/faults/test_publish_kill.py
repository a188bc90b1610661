"""`kill -9` of the node while clients upload and commit over HTTP: what was acknowledged is there and whole,
nothing is half visible, and what was cut off can simply be repeated."""

import http.client
import random
import threading
import time
from pathlib import Path

import pytest

from cairn import Cairn
from folders import MIB, assert_published, file_sha256, write_file, write_random
from hub import Client, Hub, account, inline, lfs, part_urls, server_errors

# From 256 MiB on a file is sent in parts.
MULTIPART_BYTES = 257 * MIB
# What a connection to a killed node ends with.
CUT = (OSError, http.client.HTTPException)
# How many of a repository's newest commits are read whole after each kill; all of them at the end.
READ_AGAIN = 3


class Writer:
    """Commits to a repository of its own, one change after another, and keeps account of the answers."""

    def __init__(self, hub: Hub, name: str, folder: Path, rng: random.Random):
        self.repo = hub.create(name)
        self.name = name
        self.folder = folder / name
        self.rng = rng
        self.hub = hub
        # (commit, files) of each commit that was answered with success, oldest first.
        self.acknowledged = []
        # Files of each commit whose answer never came.
        self.doubtful = []
        # SHA-256 of all contents that were ever sent, whole or not.
        self.known = set()
        self.files = {}
        # The change that was not acknowledged yet.
        self.pending = None
        self.is_committing = threading.Event()
        # What ended the last run.
        self.ended = None

    def change(self) -> dict:
        """Makes the next change: path in the repository → local file."""
        raise NotImplementedError

    def publish(self, change: dict) -> str:
        """Uploads and commits a change; calls `commits` before it asks for the commit."""
        raise NotImplementedError

    def prepare(self):
        """Does whatever is no part of a change."""

    def commits(self):
        """From here on the commit may be made, whatever the answer."""
        self.doubtful.append(self.wanted)
        self.is_committing.set()

    def round(self):
        """One change: the one that was cut off, if there is one."""
        if self.pending is None:
            self.pending = self.change()
        hashes = {path: file_sha256(source) for path, source in self.pending.items()}
        self.known |= set(hashes.values())
        self.wanted = self.files | hashes
        self.is_committing.clear()
        commit = self.publish(self.pending)
        assert self.doubtful.pop() == self.wanted
        self.acknowledged.append((commit, self.wanted))
        self.files, self.pending = self.wanted, None

    def run(self):
        """Makes changes until the node is killed."""
        try:
            while True:
                self.round()
        except BaseException as error:
            self.ended = error

    def cut_off(self):
        """Ends what waits for the node in vain."""

    def check(self, gateway, whole: bool):
        """Every acknowledged commit is in the history, in order; any other one is whole, and was sent."""
        initial, *history = reversed(gateway.commits(self.repo))
        acknowledged = dict(self.acknowledged)
        found = [commit for commit in history if commit in acknowledged]
        wanted = list(dict.fromkeys(commit for commit, _ in self.acknowledged))
        assert found == wanted, f"{self.repo}: acknowledged {wanted}, and the history has {found}"
        others = [commit for commit in history if commit not in acknowledged]
        assert len(others) <= len(self.doubtful), f"{self.repo} has commits that nobody made"
        for commit in others:
            shown = {
                entry["path"]: entry["lfs"]["oid"] if "lfs" in entry else None
                for entry in gateway.tree(self.repo, commit)
                if entry["type"] == "file" and entry["path"] != ".gitattributes"
            }
            whole_ones = [files for files in self.doubtful if _is_shown(files, shown)]
            assert whole_ones, f"{commit} of {self.repo} is not what was sent: {shown}"
            acknowledged[commit] = whole_ones[-1]
        for commit in history if whole else history[-READ_AGAIN:]:
            assert_published(gateway, self.repo, commit, acknowledged[commit])
        assert self.hub.head(self.repo) == [initial, *history][-1]
        return history


def _is_shown(files: dict, shown: dict) -> bool:
    return set(files) == set(shown) and all(
        oid is None or oid == files[path] for path, oid in shown.items()
    )


class Inline(Writer):
    """Sends small files in the commit itself."""

    def change(self):
        made = {}
        for path in ("config.json", "notes/a.txt", f"notes/{self.rng.randrange(4)}.txt"):
            made[path] = self.folder / path
            write_file(made[path], self.rng.randbytes(self.rng.randrange(10, 150_000)).hex().encode())
        return made

    def publish(self, change):
        lines = [inline(path, source.read_bytes()) for path, source in change.items()]
        self.commits()
        return self.hub.commit(self.repo, lines)


class Lfs(Writer):
    """Sends large files in one piece each, and a small one in the commit."""

    sizes = (8 * MIB, MIB, 70_000)

    def change(self):
        made = {}
        for number, size in enumerate(self.sizes):
            path = f"weights-{number}.safetensors"
            made[path] = self.folder / path
            write_random(made[path], self.rng, size)
        made["README.md"] = self.folder / "README.md"
        write_file(made["README.md"], f"# {self.rng.getrandbits(64):x}\n".encode())
        return made

    def publish(self, change):
        lines = []
        for path, source in change.items():
            if path == "README.md":
                lines.append(inline(path, source.read_bytes()))
            else:
                self.hub.upload(self.repo, source)
                lines.append(lfs(path, source))
        self.commits()
        return self.hub.commit(self.repo, lines)


class Multipart(Lfs):
    """Sends one file that is so large that it goes in parts."""

    sizes = (MULTIPART_BYTES,)

    def change(self):
        path = self.folder / "weights-0.safetensors"
        if not path.exists():
            return super().change()
        # A new file by its hash, and each of its parts another one.
        with open(path, "r+b") as file:
            for start in range(0, MULTIPART_BYTES, 32 * MIB):
                file.seek(start)
                file.write(self.rng.randbytes(8))
        return {path.name: path}


class Xet(Lfs):
    """Sends the same as xorbs and shards, with the hub's client."""

    sizes = (40 * MIB, 6 * MIB, 70_000)
    client = None

    def change(self):
        made = super().change() if not self.files else {}
        for number, size in enumerate(self.sizes):
            path = f"weights-{number}.safetensors"
            made[path] = self.folder / path
            with open(made[path], "r+b") as file:
                file.seek(self.rng.randrange(size // 2))
                file.write(self.rng.randbytes(size // 2))
        return made

    def prepare(self):
        # Whatever it keeps of what it has sent, it has not.
        home = self.folder / f"home-{self.rng.getrandbits(32):x}"
        self.client = Client(self.hub.gateway.url, self.hub.who, home)
        assert self.client.call("repo_exists", repo_id=self.repo) == "True"

    def publish(self, change):
        client = self.client
        if client is None:
            raise ConnectionError("cut off before it began")
        # It uploads and commits in one call, which says nothing in between.
        self.commits()
        operations = [("add", path, str(source)) for path, source in change.items()]
        answer = client.commit_answer(self.repo, *operations)
        if answer.get("status") == 0:
            raise ConnectionError(answer["error"])
        assert "result" in answer, answer
        return answer["result"]

    def cut_off(self):
        client, self.client = self.client, None
        if client is not None:
            client.kill()


class Flow:
    """A node that is published to and killed, again and again."""

    def __init__(self, node: Cairn, folder: Path, rng: random.Random):
        self.node = node
        self.rng = rng
        hub = Hub(node.up(), account(node, "ada"))
        self.writers = [
            kind(hub, kind.__name__.lower(), folder, random.Random(rng.getrandbits(64)))
            for kind in (Inline, Lfs, Xet, Multipart)
        ]
        *small, xet, multipart = self.writers
        # Both at once would leave two cores little time for anything else.
        self.teams = [[*small, xet], [*small, multipart]]

    def measure(self) -> list:
        """Seconds that each team takes for a change, undisturbed."""
        seconds = []
        for team in self.teams:
            for writer in team:
                writer.prepare()
            begin = time.monotonic()
            for writer in team:
                writer.round()
            seconds.append(time.monotonic() - begin)
            for writer in team:
                writer.cut_off()
        return seconds

    def kill(self, number: int, seconds: list, every: int):
        """Lets a team publish, and kills the node meanwhile; every third time while the slow one commits.

        Each `every`-th time there is a file in parts among it, which takes a lot of the disk.
        """
        chosen = number % every == 1
        team, span = self.teams[chosen], seconds[chosen]
        for writer in team:
            writer.prepare()
            writer.is_committing.clear()
        threads = [threading.Thread(target=writer.run) for writer in team]
        for thread in threads:
            thread.start()
        # By itself each was faster than all are together.
        slow, instant = team[-1], self.rng.uniform(0.02, 1.5) * span
        is_late = number % 3 == 2
        if is_late and slow.is_committing.wait(30):
            # The commit itself takes a moment only, but for what the hub's client does before it.
            instant = self.rng.uniform(0, 1.5 * span if isinstance(slow, Xet) else 0.1)
        threads[0].join(instant)
        too_early = [writer for writer, thread in zip(team, threads, strict=True) if not thread.is_alive()]
        self.node.kill()
        for writer, thread in zip(team, threads, strict=True):
            writer.cut_off()
            thread.join(60)
            assert not thread.is_alive(), f"{writer.name} goes on without a node"
        at = "committing" if is_late else "publishing"
        made = {writer.name: len(writer.acknowledged) for writer in team}
        print(f"kill {number} after {instant:.3f} of {span:.2f} s of {at}: acknowledged {made}")
        for writer in team:
            if writer in too_early or not isinstance(writer.ended, CUT):
                raise AssertionError(f"{writer.name} failed: {writer.ended!r}") from writer.ended

    def restart(self):
        """Starts it again, looks at everything that the kill could have hurt, repeats what was cut off."""
        gateway = self.node.up()
        assert self.node.temporary_files() == [], "a start leaves temporary files"
        for writer in self.writers:
            writer.hub = Hub(gateway, writer.hub.who)
            writer.check(gateway, whole=False)
        for writer in self.writers:
            if writer.pending is not None:
                writer.prepare()
                writer.round()
                newest, files = writer.acknowledged[-1]
                history = writer.check(gateway, whole=False)
                assert history[-1] == newest, "the repeated commit is not the head"
                assert_published(gateway, writer.repo, "main", files)
            writer.cut_off()

    def end(self):
        """All of it is there, nothing else is, and what is left waits for a commit."""
        gateway = self.node.gateway
        for writer in self.writers:
            writer.check(gateway, whole=True)
        verified = self.node.run("verify", "--json")
        assert verified.returncode == 0, f"{verified.stdout}{verified.stderr}"
        self.node.json("gc")
        again = self.node.json("gc")
        assert all(again[name] == 0 for name in ("blobs", "bytes", "strays")), again
        known = set().union(*(writer.known for writer in self.writers))
        strange = [path for path in self.node.blob_paths() if file_sha256(path) not in known]
        assert strange == [], f"contents that nobody sent: {strange}"
        for writer in self.writers:
            writer.check(gateway, whole=False)


@pytest.fixture
def flow(cairn, folder, rng):
    made = Flow(cairn, folder, rng)
    yield made
    for writer in made.writers:
        writer.cut_off()


def test_kills_of_the_node_that_is_published_to(flow, cairn, long):
    seconds = flow.measure()
    print("a change of each team takes " + ", ".join(f"{span:.2f} s" for span in seconds))
    count = 50 if long else 6
    for number in range(count):
        flow.kill(number, seconds, 5 if long else 2)
        flow.restart()
    flow.end()
    left = [path for path in cairn.data.rglob("*.tmp") if path.is_file()]
    assert left == [], f"left behind by killed uploads: {left}"


@pytest.mark.parametrize("kind", [Lfs, Multipart])
def test_what_was_cut_off_can_be_sent_again(cairn, folder, rng, kind):
    """The node dies in the middle of a file or part; then all is sent from its beginning."""
    writer = kind(Hub(cairn.up(), account(cairn, "ada")), "model", folder, rng)
    writer.pending = writer.change()
    source = writer.pending["weights-0.safetensors"]
    for _ in range(3):
        action = writer.hub.asked(writer.repo, source)
        urls = [url for _, url in part_urls(action)] or [action["href"]]
        size = int(action.get("header", {}).get("chunk_size", source.stat().st_size))
        content = source.read_bytes()[:size]
        connection = writer.hub.begin(urls[0], content[: size // 2], size)
        cairn.kill()
        connection.close()
        writer.hub = Hub(cairn.up(), writer.hub.who)
        assert cairn.temporary_files() == [], "a start leaves temporary files"
    writer.round()
    assert_published(cairn.gateway, writer.repo, "main", writer.files)
    assert not [path for path in cairn.data.rglob("*.tmp") if path.is_file()]
    assert server_errors(cairn.gateway) == {}
