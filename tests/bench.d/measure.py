"""What every group measures with: time, CPU, medians, and the table of results."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
GB = 1e9
TICKS = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """A program to compare with is not installed."""


class Bench:
    """One run: sizes, rounds, a folder to work in, and the results so far."""

    def __init__(self, folder: Path, small: bool, rounds: int):
        self.folder = folder
        self.small = small
        self.rounds = rounds
        self.lines = []
        self.passed = 0
        self.failed = 0

    def size(self, full: int, small: int) -> int:
        """A size or count: the issue's, or a tiny one."""
        return small if self.small else full

    def tool(self, name: str) -> str:
        """The path of a program."""
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            raise Missing(f"{name} is not installed")
        return found

    def group(self, name: str, run):
        """Runs a group in a folder of its own; a failure in it is a failed result, not the end."""
        print(f"\n== {name}", flush=True)
        folder = self.folder / name
        folder.mkdir()
        start = time.monotonic()
        try:
            run(self, folder)
        except Missing as missing:
            self._result(name, "-", "-", None if self.small else False, f"not measured: {missing}")
        except (Exception, SystemExit):
            traceback.print_exc()
            self._result(name, "-", "-", False, "ended by an error")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"   ({time.monotonic() - start:.0f} s)", flush=True)

    def say(self, text: str):
        """A line of detail."""
        print(f"   {text}", flush=True)

    def at_least(self, name: str, value: float, target: float, unit=""):
        """A result that must not be lower."""
        self._result(name, f"{value:.2f}{unit}", f">= {target:g}{unit}", value >= target)

    def at_most(self, name: str, value: float, target: float, unit=""):
        """A result that must not be higher."""
        self._result(name, f"{value:.2f}{unit}", f"<= {target:g}{unit}", value <= target)

    def _result(self, name, value, target, good, note=""):
        if self.small and good is not None and value != "-":
            word = "RAN"
            self.passed += 1
        elif good is None:
            word = "LEFT-OUT"
        else:
            word = "PASS" if good else "FAIL"
            self.passed += bool(good)
            self.failed += not good
        line = f"{name:<44} {value:>12} {target:>12} {word} {note}".rstrip()
        self.lines.append(line)
        print(f"-> {line}", flush=True)

    def finish(self) -> int:
        """Prints the table; the exit code."""
        print(f"\n{'name':<44} {'ratio':>12} {'target':>12}")
        for line in self.lines:
            print(line)
        if self.small:
            print("small sizes, one round: no target is asserted")
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0


def sized(size: int) -> str:
    """`2 GiB`, `16 MiB`."""
    return f"{size / GIB:g} GiB" if size >= GIB else f"{size / MIB:g} MiB"


def median(values) -> float:
    """The middle of the rounds."""
    return statistics.median(values)


def spread(values, form="{:.2f}") -> str:
    """`median [lowest-highest]`."""
    values = list(values)
    shown = (form.format(value) for value in (median(values), min(values), max(values)))
    return "{} [{}-{}]".format(*shown)


def interleaved(rounds: int, contenders: dict):
    """Yields (round, name, what to call) so that each goes first equally often."""
    names = list(contenders)
    for number in range(rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            yield number, name, contenders[name]


def timed(call) -> float:
    """Seconds that a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start


def settle(warm: int = 0, folder: Path = None):
    """Writes out what is dirty, so that no one pays for what another one wrote.

    And gets `warm` bytes of page cache ready, by a file in a folder. A virtual machine may give memory that
    is free for two seconds back to its host, and whoever writes to it next pays for getting it again: ten
    times what the writing takes, and by chance the one or the other of two that are compared.
    """
    os.sync()
    if warm:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(0, warm, MIB):
                file.write(bytes(MIB))


def check(command, **options):
    """Runs a command that must succeed, without its output."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def processes(root: int) -> list:
    """A process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = _stat(int(entry))
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += parents.get(pid, [])
    return found


def _stat(pid: int) -> list:
    """Fields of /proc/PID/stat from the state on (the name before it may hold anything)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(root: int) -> float:
    """User and system time of a process, its descendants, and those it has waited for."""
    ticks = 0
    for pid in processes(root):
        try:
            ticks += sum(int(field) for field in _stat(pid)[11:15])
        except OSError:
            continue
    return ticks / TICKS


def fill(path: Path, size: int):
    """Writes random bytes; the same block again and again with its number in it is enough here."""
    block = bytearray(os.urandom(4 * MIB))
    with open(path, "wb") as file:
        for start in range(0, size, len(block)):
            block[:8] = start.to_bytes(8, "little")
            file.write(block[: size - start])


def renew(path: Path):
    """Makes a file's content new to every store by its first 32 bytes."""
    with open(path, "r+b") as file:
        file.write(os.urandom(32))


def require(condition, what: str):
    """Ends the group where a measurement would mean nothing."""
    if not condition:
        raise RuntimeError(what)
