"""The real binary, one data folder at a time: starts it, kills it, asks it.

Nothing here knows how a node works inside; it uses the command line, the process table and the
gateway, as an operator would.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from gateway import Gateway

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

# Seconds within which things must have happened that a loaded two-core machine may delay.
START_SECONDS = 30
VERB_SECONDS = 300


# Nodes that run; whatever ends this program, they end with it.
RUNNING = set()


@atexit.register
def end_nodes():
    """Kills every node that still runs."""
    for node in list(RUNNING):
        node.close()


def end_by_signal():
    """Lets SIGTERM end this program as Ctrl-C does, with everything cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def binary() -> Path:
    """The program under test."""
    given = os.environ.get("CAIRN_BIN")
    path = Path(given) if given else REPOSITORY_ROOT / "target" / "release" / "cairn"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: run `cargo build --release`, or set CAIRN_BIN")
    return path.resolve()


def wait_for(condition, seconds: float, what: str):
    """Returns the first true value of `condition()`; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody has at the moment for TCP, nor the one after it for TCP and UDP (contents)."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as contents:
                    contents.bind(("127.0.0.1", port + 1))
                    with socket.create_server(("127.0.0.1", port + 1)):
                        return port


class Failed(Exception):
    """A verb that did not exit with 0."""

    def __init__(self, arguments, code, stdout, stderr):
        super().__init__(f"cairn {' '.join(map(str, arguments))}: exit code {code}\n{stdout}{stderr}")
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


class Cairn:
    """A data folder, and its node while one runs."""

    def __init__(self, data: Path, prefix=(), peers=()):
        """`prefix` is a command that runs each process, such as one that enters a namespace.

        `peers` are other `Cairn`s that its node keeps connected to; each keeps its port when it is
        started again.
        """
        self.data = Path(data)
        self.prefix = list(prefix)
        self.peers = list(peers)
        self.port = free_port()
        self.process = None
        self.gateway = None
        self.log = self.data.parent / f"{self.data.name}.log"
        settings = self.data.parent / "no-settings"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CAIRN_") or name == "CAIRN_TEST_RUN"
        }
        self.environment |= {"XDG_CONFIG_HOME": str(settings), "NO_COLOR": "1"}
        # By default a tenth of the disk stays free, which the disk of this machine may not have.
        self.environment["CAIRN_CACHE_SIZE"] = "64GB"

    # The command line.

    def command(self, *arguments) -> list:
        """The whole command of a verb on this data folder."""
        verb, *rest = [os.fsdecode(argument) for argument in arguments]
        return [*self.prefix, str(binary()), verb, "--data", str(self.data), *rest]

    def run(self, *arguments, seconds=VERB_SECONDS):
        """Runs a verb to its end; returns the finished process, whatever its exit code."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            text=True,
            errors="backslashreplace",
        )

    def json(self, *arguments, seconds=VERB_SECONDS):
        """What a verb prints with `--json`; raises `Failed` unless it exits with 0."""
        done = self.run(*arguments, "--json", seconds=seconds)
        if done.returncode != 0:
            raise Failed(arguments, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def push(self, folder, name: str, *options, seconds=VERB_SECONDS) -> dict:
        """Publishes a folder: `{"repo", "commit", ...}`."""
        return self.json("push", str(folder), name, *options, seconds=seconds)

    def start_push(self, folder, name: str, *options) -> subprocess.Popen:
        """Begins a push and returns its process."""
        return subprocess.Popen(
            self.command("push", str(folder), name, *options, "--json"),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )

    # The node.

    def up(self, seconds=START_SECONDS) -> Gateway:
        """Starts the node and returns its gateway once it answers."""
        self.launch()
        assert self.ready(seconds), f"the node ended at once: {self.logged()}"
        return self.gateway

    def ready(self, seconds=START_SECONDS) -> bool:
        """Waits until the launched node answers; False where its process ended instead."""
        wait_for(
            lambda: self.process.poll() is not None or self._printed_url(),
            seconds,
            f"the node is up; its log: {self.logged()}",
        )
        if self.process.poll() is not None:
            return False
        self.gateway = Gateway(self._printed_url())
        wait_for(self._healthy, seconds, f"/healthz answers; the log: {self.logged()}")
        return True

    def ended(self) -> int:
        """The exit code of a node that ended by itself."""
        process, self.process, self.gateway = self.process, None, None
        RUNNING.discard(self)
        return process.wait(10)

    def launch(self, *arguments):
        """Starts `up` without waiting for anything."""
        assert self.process is None, "one node at a time"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command("up", "--gateway", "127.0.0.1:0", *self.network(), *arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        RUNNING.add(self)

    def network(self) -> list:
        """The flags by which it speaks to its peers, and to nobody else."""
        flags = ["--no-mdns", "--listen", self.address]
        for peer in self.peers:
            flags += ["--peer", peer.address]
        return flags

    @property
    def address(self) -> str:
        """Where its node can be reached, while one runs."""
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    def _printed_url(self):
        found = re.search(r"http://127\.0\.0\.1:\d+", self.logged())
        return found and found.group()

    def _healthy(self):
        try:
            return self.gateway.get("/healthz").status == 200
        except OSError:
            return False

    def logged(self) -> str:
        """What the node has printed since it was started, its last 20 kB."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-20_000:].decode(errors="backslashreplace")

    def kill(self):
        """`kill -9`, and waits until it is gone."""
        self._signal(signal.SIGKILL, 10)

    def stop(self, seconds=10) -> int:
        """SIGTERM; returns the exit code, fails when the node takes longer than `seconds`."""
        return self._signal(signal.SIGTERM, seconds)

    def _signal(self, number, seconds) -> int:
        process, self.process, self.gateway = self.process, None, None
        RUNNING.discard(self)
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the node did not end within {seconds} s") from None

    def close(self):
        """Ends the node if it still runs."""
        RUNNING.discard(self)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None

    # What is on disk.

    def temporary_files(self) -> list:
        """Everything below `tmp/`."""
        return sorted(str(path) for path in (self.data / "tmp").rglob("*"))

    def partial_files(self) -> list:
        """Everything that is kept of files that are not complete."""
        return sorted(str(path) for path in (self.data / "partial").rglob("*") if path.is_file())

    def damage(self, path: Path, offset: int):
        """Flips a bit of a stored file, as rot does: the file's times stay what they were."""
        times = path.stat()
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def blob_paths(self) -> list:
        """All flat content files (a name of 64 hex digits, without an ending)."""
        return [
            path
            for path in (self.data / "blobs").rglob("*")
            if re.fullmatch(r"[0-9a-f]{64}", path.name) and path.is_file()
        ]


class Memory:
    """Watches a process's resident memory; use as a context."""

    def __init__(self, pid: int):
        self.pid = pid
        self.first = self.peak = resident_bytes(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self._ended.wait(0.05):
            try:
                self.peak = max(self.peak, resident_bytes(self.pid))
            except OSError:
                return

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes by which it rose at most."""
        return self.peak - self.first


def status_bytes(pid: int, field: str) -> int:
    """A size from /proc/PID/status, such as `VmRSS` or `VmHWM`, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return status_bytes(pid, "VmRSS")
