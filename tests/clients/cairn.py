"""A real node under test: starts `cairn up`, pushes with `cairn push`, stops it with SIGTERM.

With CAIRN_TEST_REMOTE set there are two: what is pushed goes to the one, and the clients ask the other,
which holds nothing at the start and fetches what they ask for.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 20
STOP_SECONDS = 10
COMMAND_SECONDS = 120
SPREAD_SECONDS = 20

AUTHOR_NAME = "Test Author"
AUTHOR_EMAIL = "author@example.org"

# A name of each kind that older code uses without a namespace, and what it leads to here.
ALIASES = {"gpt2": "local/tiny-bert", "rows": "local/table-csv"}


class CommandFailed(Exception):
    """A `cairn` command that ended with another code than 0; `args[0]` has all that it printed."""


@dataclass(frozen=True)
class Published:
    """A folder as it was pushed once: where it came from and what `cairn push --json` said."""

    kind: str
    name: str
    repo: str
    commit: str
    folder: Path
    # Its id as the asked node's user may shorten it: `local/NAME` where it is of that node's namespace.
    alias: str

    @property
    def prefix(self) -> str:
        """What stands before the id in file URLs."""
        return "" if self.kind == "model" else f"{self.kind}s/"

    def files(self) -> dict[str, bytes]:
        """Path to content of every file of the folder, as it is now."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@dataclass
class Node:
    """One `cairn up` and its data folder."""

    root: Path
    binary: Path = field(default_factory=lambda: binary())
    process: subprocess.Popen | None = None
    peers: tuple[str, ...] = ()
    # Further lines of its settings file.
    settings: str = ""
    gateway: str = "127.0.0.1:0"
    # What `up` is told beside these.
    flags: tuple[str, ...] = ()
    url: str = ""
    namespace: str = ""
    addresses: tuple[str, ...] = ()

    @property
    def home(self) -> "Node":
        """The node that what is pushed has its home on, and that takes what clients publish."""
        return self

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        """Everything that `cairn up` printed."""
        return self.root / "up.log"

    def environment(self) -> dict[str, str]:
        """The environment of each command: this one's without settings of Cairn, and the file."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("CAIRN_")}
        return inherited | {"CAIRN_CONFIG": str(self.root / "cairn.toml")}

    def start(self) -> "Node":
        """Starts the node and waits until `cairn status` names its gateway."""
        self.root.mkdir(parents=True, exist_ok=True)
        aliases = "".join(f'{alias} = "{target}"\n' for alias, target in self.aliases().items())
        (self.root / "cairn.toml").write_text(
            f'author_name = "{AUTHOR_NAME}"\nauthor_email = "{AUTHOR_EMAIL}"\n'
            f'listen = ["/ip4/127.0.0.1/tcp/0"]\nmdns = false\npeers = {json.dumps(self.peers)}\n'
            # However full this machine's disk is.
            'cache_size = "2GiB"\n'
            f"{self.settings}"
            f"\n[aliases]\n{aliases}"
        )
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [self.binary, "up", "--data", self.data, "--gateway", self.gateway, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
            )
        try:
            status = self._wait_for_status(begin)
        except BaseException:
            self.kill()
            raise
        self.url = status["gateway_url"].rstrip("/")
        self.namespace = status["namespace"]
        self.addresses = tuple(status["listen_addrs"])
        return self

    def aliases(self) -> dict[str, str]:
        """Its `[aliases]`."""
        return ALIASES

    def _wait_for_status(self, begin: int) -> dict:
        deadline = time.monotonic() + START_SECONDS
        last = "no answer yet"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise CommandFailed(
                    f"cairn up ended with {self.process.returncode}:\n{self.log.read_text()}"
                )
            # Before it prints something it has not opened its folder for sure: asked on a second start,
            # `status` would open that by itself, and the node find it locked.
            if self.log.stat().st_size > begin:
                with contextlib.suppress(CommandFailed):
                    status = self.run("status")
                    if status.get("gateway_url"):
                        return status
                    last = json.dumps(status)
            time.sleep(0.05)
        raise CommandFailed(
            f"no gateway after {START_SECONDS} s; status: {last}\n{self.log.read_text()}"
        )

    def run(self, *arguments: str | Path) -> dict:
        """Runs `cairn ARGUMENTS --data … --json` and returns what it printed."""
        done = subprocess.run(
            [self.binary, *map(str, arguments), "--data", self.data, "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=self.environment(),
            check=False,
        )
        if done.returncode != 0:
            raise CommandFailed(
                f"cairn {' '.join(map(str, arguments))} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return json.loads(done.stdout)

    def push(
        self,
        folder: Path,
        name: str,
        kind: str = "model",
        ref: str | None = None,
        message: str | None = None,
    ) -> Published:
        """Publishes a folder."""
        arguments: list[str | Path] = ["push", folder, name]
        if kind != "model":
            arguments.append(f"--{kind}")
        if ref is not None:
            arguments += ["--ref", ref]
        if message is not None:
            arguments += ["-m", message]
        answer = self.run(*arguments)
        return Published(
            kind, name, answer["repo"], answer["commit"], folder, self.alias(answer["repo"])
        )

    def alias(self, repo: str) -> str:
        """A published repository's id in the asked node's own namespace, if it is of that."""
        return repo.replace(f"{self.namespace}/", "local/")

    def stop(self) -> int:
        """Ends the node with SIGTERM, as a service manager does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CommandFailed(
                f"cairn up still ran {STOP_SECONDS} s after SIGTERM:\n{self.log.read_text()}"
            ) from None

    def kill(self) -> None:
        """Ends the node at once, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Remote(Node):
    """A node that holds nothing, beside the one that publishes: `push` goes there, all else is here."""

    def start(self) -> "Node":
        """Starts both."""
        self.publisher = Node(self.root / "publisher").start()
        self.peers = self.publisher.addresses[:1]
        super().start()
        self.namespace = self.publisher.namespace
        return self

    @property
    def home(self) -> Node:
        return self.publisher

    def aliases(self) -> dict[str, str]:
        """The same names, for what is another node's here."""
        own = f"{self.publisher.namespace}/"
        return {alias: target.replace("local/", own) for alias, target in ALIASES.items()}

    def push(self, *arguments, **options) -> Published:
        """Publishes on the other node, and waits until this one shows it."""
        published = self.publisher.push(*arguments, **options)
        path = f"/api/{published.kind}s/{published.repo}/revision/{published.commit}"
        deadline = time.monotonic() + SPREAD_SECONDS
        while True:
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(self.url + path, timeout=COMMAND_SECONDS).close()
                return dataclasses.replace(published, alias=published.repo)
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"{published.repo} is not shown after {SPREAD_SECONDS} s\n{self.log.read_text()}"
                )
            time.sleep(0.01)

    def stop(self) -> int:
        """Ends both; the first code that is not 0."""
        return super().stop() or self.publisher.stop()

    def kill(self) -> None:
        """Ends both at once."""
        super().kill()
        self.publisher.kill()


def node(root: Path) -> Node:
    """The node that the clients ask: `Remote` if CAIRN_TEST_REMOTE is set."""
    return Remote(root) if os.environ.get("CAIRN_TEST_REMOTE") else Node(root)


def binary() -> Path:
    """The `cairn` under test: `$CAIRN_BIN`, or the release build."""
    root = Path(__file__).resolve().parents[2]
    path = Path(os.environ.get("CAIRN_BIN") or root / "target" / "release" / "cairn")
    if not path.is_file():
        raise CommandFailed(f"{path} is missing: build it with `cargo build --release`")
    return path
