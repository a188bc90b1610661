"""A full disk: a clear error, and the node goes on serving; room again, and it goes on taking."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cairn import Cairn
from folders import MIB, assert_published, fingerprint, sample

SIZE = 64 * MIB


@pytest.fixture
def small_disk(folder):
    """A mounted tmpfs of 64 MiB: its path for us, its path for processes, and their prefix."""
    mount_point = Path(tempfile.mkdtemp(prefix="cairn-full-"))
    options = ["-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(mount_point)]
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(os.rmdir, mount_point)
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
        if mounted.returncode == 0:
            cleanup.callback(subprocess.run, ["umount", "--lazy", str(mount_point)], check=True)
            yield mount_point, mount_point, []
            return
        holder = cleanup.enter_context(private_namespace(options, mounted.stderr))
        yield (
            Path(f"/proc/{holder}/root{mount_point}"),
            mount_point,
            [
                "nsenter",
                f"--target={holder}",
                "--user",
                "--mount",
                "--preserve-credentials",
                "--wd=/",
            ],
        )


@contextlib.contextmanager
def private_namespace(options, why):
    """A process in namespaces of its own, in which the tmpfs is mounted; yields its id."""
    script = 'mount "$@" && echo mounted && exec cat'
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if holder.stdout.readline().strip() != "mounted":
            pytest.fail(
                "no tmpfs can be mounted here, neither as this user nor in a user namespace: "
                f"{why.strip()}; {holder.stderr.read().strip()}"
            )
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait(10)


class FullDisk:
    """A node whose data folder is on the small disk."""

    def __init__(self, folder, rng, disk):
        self.visible, inner, prefix = disk
        self.cairn = Cairn(inner / "data", prefix)
        self.cairn.log = folder / "node.log"
        self.rng = rng
        self.folder = folder
        self.ballast = self.visible / "ballast"
        self.cairn.up()
        self.pushed = []
        self.push("first", 8 * MIB)

    def push(self, name: str, size: int):
        """Pushes a new folder with a file of this size, and remembers it."""
        source = sample(self.folder / name, self.rng, large=(size,))
        self.pushed.append((self.cairn.push(source, name), fingerprint(source)))

    def push_too_much(self, name: str, size: int):
        """A push that cannot fit: a clear error with a hint, and nothing of it is left."""
        source = sample(self.folder / name, self.rng, large=(size,))
        before = self.free_bytes()
        done = self.cairn.run("push", str(source), name, "--json")
        assert done.returncode == 1, f"fits: {done.stdout}{done.stderr}"
        assert "error:" in done.stderr and "space" in done.stderr, done.stderr
        assert "hint:" in done.stderr, done.stderr
        assert "panicked" not in done.stderr + self.cairn.logged(), self.cairn.logged()
        left = before - self.free_bytes()
        assert left < 4 * MIB, f"the refused push left {left} bytes behind"
        repo = f"{self.cairn.json('status')['namespace']}/{name}"
        assert self.cairn.gateway.absent(repo)
        self.check()

    def check(self):
        """The same process serves all that was acknowledged."""
        assert self.cairn.process.poll() is None, f"the node ended: {self.cairn.logged()}"
        for answer, content in self.pushed:
            assert_published(self.cairn.gateway, answer["repo"], answer["commit"], content)

    def free_bytes(self) -> int:
        found = os.statvfs(self.visible)
        return found.f_bavail * found.f_frsize

    def fill(self):
        """Takes every free byte of the disk."""
        with open(self.ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(64 << 10))
        with open(self.ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))
        assert self.free_bytes() < 8192


@pytest.fixture
def full_disk(folder, rng, small_disk):
    made = FullDisk(folder, rng, small_disk)
    yield made
    made.cairn.close()


def test_a_push_that_does_not_fit_is_refused_and_a_smaller_one_works(full_disk):
    full_disk.push_too_much("too-large", 100 * MIB)
    full_disk.push("fits", 6 * MIB)
    full_disk.check()
    full_disk.push_too_much("too-large-again", 80 * MIB)
    full_disk.push("fits-too", 2 * MIB)
    full_disk.check()
    assert full_disk.cairn.run("verify").returncode == 0


def test_a_disk_filled_by_others_stops_pushes_until_there_is_room(full_disk):
    full_disk.fill()
    full_disk.push_too_much("no-room", 100_000)
    full_disk.push_too_much("no-room-for-a-kilobyte", 1000)
    for verb in (["status"], ["ls"], ["info", "local/first"], ["gc", "--dry-run"]):
        full_disk.cairn.json(*verb)
    full_disk.ballast.unlink()
    full_disk.push("room-again", 2 * MIB)
    full_disk.push("and-again", 1000)
    full_disk.check()
    assert full_disk.cairn.run("verify").returncode == 0
    full_disk.cairn.kill()
    full_disk.cairn.up()
    full_disk.check()


def test_a_node_starts_and_serves_on_a_full_disk(full_disk):
    assert full_disk.cairn.stop() == 0
    full_disk.fill()
    full_disk.cairn.up()
    full_disk.check()
    full_disk.push_too_much("no-room", 100_000)
    full_disk.ballast.unlink()
    full_disk.push("room-again", 2 * MIB)
    full_disk.check()
