"""Two nodes, one of which publishes what the other fetches; and a network of their own for two."""

import contextlib
import subprocess
from pathlib import Path

from cairn import Cairn, wait_for
from folders import MIB, file_sha256, fingerprint, sample

CONNECT_SECONDS = 30


class Two:
    """A publisher and a node that follows it."""

    def __init__(self, folder: Path, rng, large=(48 * MIB,), small=4):
        self.folder = folder
        self.rng = rng
        self.source = Cairn(folder / "source")
        self.sink = Cairn(folder / "sink", peers=[self.source])
        self.tree = sample(folder / "tree", rng, large=large, small=small)

    def up(self):
        """Starts both, and waits until they know each other."""
        self.source.up()
        self.sink.up()
        self.connected()

    def connected(self):
        """Waits until each has the other for a peer."""
        for node in (self.sink, self.source):
            wait_for(lambda node=node: node.json("peers")["peers"], CONNECT_SECONDS, "a peer is there")

    def publish(self, name: str, shown=True) -> dict:
        """Pushes the tree on the source, and waits until the sink shows it."""
        pushed = self.source.push(self.tree, name)
        if shown:
            self.shown(pushed)
        return pushed

    def shown(self, pushed: dict):
        """Waits until the sink shows a pushed commit."""
        path = f"/api/models/{pushed['repo']}/revision/{pushed['commit']}"
        wait_for(
            lambda: self.sink.gateway.get(path).status == 200,
            CONNECT_SECONDS,
            f"{path} is shown; the sink's log: {self.sink.logged()}",
        )

    def size(self) -> int:
        """Bytes of the tree."""
        return sum(path.stat().st_size for path in self.tree.rglob("*") if path.is_file())

    def sent(self) -> int:
        """Bytes of content that the source has sent, since it was started."""
        return sum(peer["sent_bytes"] for peer in self.source.json("peers")["peers"])

    def check(self, folder: Path):
        """A pulled folder is exactly the pushed tree."""
        pulled = fingerprint(folder)
        pulled.pop(".gitattributes", None)
        wanted = fingerprint(self.tree)
        wanted.pop(".gitattributes", None)
        assert pulled == wanted, "the pulled folder differs from the pushed one"

    def stored(self, name="weights-00.safetensors") -> Path:
        """Where the sink keeps a file of the tree."""
        wanted = file_sha256(self.tree / name)
        return next(path for path in self.sink.blob_paths() if file_sha256(path) == wanted)

    def close(self):
        """Ends both."""
        self.sink.close()
        self.source.close()


@contextlib.contextmanager
def local_network():
    """Two network namespaces joined by a cable: the prefixes of commands in them, and their addresses.

    Each takes the other for its way to everywhere else, so that nothing is left unsent for want of a route.
    """
    with contextlib.ExitStack() as ends:
        first = ends.enter_context(_namespace([]))
        second = ends.enter_context(_namespace(_enter(first, net=False)))
        setup = (
            f"ip link add cable0 type veth peer name cable1 netns {second}"
            " && ip address add 10.77.0.1/24 dev cable0 && ip link set cable0 up && ip link set lo up"
            " && ip route add default via 10.77.0.2"
        )
        _run([*_enter(first), "sh", "-c", setup])
        setup = (
            "ip address add 10.77.0.2/24 dev cable1 && ip link set cable1 up && ip link set lo up"
            " && ip route add default via 10.77.0.1"
        )
        _run([*_enter(second), "sh", "-c", setup])
        yield (_enter(first), "10.77.0.1"), (_enter(second), "10.77.0.2")


@contextlib.contextmanager
def _namespace(prefix):
    """A process in a network namespace of its own, its id; in a user namespace too unless in one."""
    user = [] if prefix else ["--user", "--map-root-user"]
    holder = subprocess.Popen(
        [*prefix, "unshare", *user, "--net", "sh", "-c", "echo $$ && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = holder.stdout.readline().strip()
        assert line, f"no network namespace can be made here: {holder.stderr.read().strip()}"
        yield int(line)
    finally:
        holder.stdin.close()
        holder.wait(10)


def _enter(pid: int, net=True) -> list:
    """The prefix of a command in a process's namespaces."""
    return [
        "nsenter",
        f"--target={pid}",
        "--user",
        *(["--net"] if net else []),
        "--preserve-credentials",
    ]


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
