"""`kill -9` at random instants of large pushes: nothing acknowledged is lost, nothing half visible."""

import json
import signal
import subprocess
import time

from cairn import Cairn, Failed
from folders import MIB, Ledger, assert_published, fingerprint, renew, sample

LARGE = (64 * MIB, 64 * MIB, 32 * MIB, 24 * MIB, 16 * MIB)


class Flow:
    """A store that is pushed to and killed, again and again."""

    def __init__(self, cairn: Cairn, folder, rng, node_runs: bool):
        self.cairn = cairn
        self.rng = rng
        self.node_runs = node_runs
        self.source = sample(folder / "source", rng, large=LARGE, small=40)
        self.ledger = Ledger(folder / "ledger")
        self.landed = 0

    def start_node(self):
        if self.node_runs:
            self.cairn.up()

    def acknowledge(self, answer: dict):
        self.ledger.add(answer, fingerprint(self.source))

    def measure(self) -> float:
        """Seconds that an undisturbed push of all-new content takes, the shortest of three."""
        seconds = []
        for _ in range(3):
            renew(self.source, self.rng)
            start = time.monotonic()
            answer = self.cairn.push(self.source, "measured")
            seconds.append(time.monotonic() - start)
            self.acknowledge(answer)
        return min(seconds)

    def kill_during_push(self, name: str, seconds: float):
        """Pushes new content and kills the process that writes after `seconds`."""
        renew(self.source, self.rng)
        push = self.cairn.start_push(self.source, name)
        try:
            push.wait(seconds)
        except subprocess.TimeoutExpired:
            self.landed += 1
        if self.node_runs:
            self.cairn.kill()
        elif push.poll() is None:
            push.send_signal(signal.SIGKILL)
        stdout, stderr = push.communicate(timeout=20)
        if push.returncode == 0:
            self.acknowledge(json.loads(stdout))
        elif self.node_runs:
            assert push.returncode == 1, f"exit code {push.returncode}: {stderr}"
            assert "error:" in stderr, f"the push says nothing of its lost node: {stderr!r}"

    def check(self, name: str, whole: bool):
        """Restarts, and looks at everything that the kill could have hurt."""
        pushed = fingerprint(self.source)
        gateway = self.cairn.up()
        assert self.cairn.temporary_files() == [], "a start leaves temporary files"
        self.ledger.check_listed(gateway)
        namespace = self.cairn.json("status")["namespace"]
        self.check_in_doubt(gateway, f"{namespace}/{name}", pushed)
        checked = self.cairn.run("verify", *([] if whole else [f"local/{name}"]), "--json")
        if whole or f"{namespace}/{name}" in gateway.listed():
            assert checked.returncode == 0, f"verify: {checked.stdout}{checked.stderr}"
        if not self.node_runs:
            assert self.cairn.stop() == 0
        again = self.cairn.push(self.source, name)
        self.acknowledge(again)
        if self.node_runs:
            assert_published(gateway, again["repo"], again["commit"], pushed)

    def check_in_doubt(self, gateway, repo: str, pushed: dict):
        """The repository stands at its last acknowledged commit, or complete at the pushed one."""
        acknowledged = self.ledger.newest(repo)
        if acknowledged is None and gateway.absent(repo):
            assert repo not in gateway.listed(), f"{repo} is listed and has no head"
            return
        head = gateway.json(f"/api/models/{repo}")["sha"]
        assert head, f"{repo} is visible and has no commit"
        if acknowledged is not None and head == acknowledged["commit"]:
            assert_published(gateway, repo, "main", acknowledged["files"])
        else:
            assert_published(gateway, repo, "main", pushed)


def kills(flow: Flow, count: int):
    """Spreads kills over a push: a third in its last part, where it is signed and made visible."""
    flow.start_node()
    seconds = flow.measure()
    print(f"a push takes {seconds:.2f} s")
    for number in range(count):
        first, last = (0.75, 1.0) if number % 3 == 2 else (0.0, 0.98)
        instant = seconds * flow.rng.uniform(first, last)
        name = "again" if number % 2 else f"new-{number}"
        print(f"kill {number}: {name} after {instant:.3f} s")
        flow.kill_during_push(name, instant)
        flow.check(name, whole=number % 5 == 4)
    if not flow.node_runs:
        flow.cairn.up()
    flow.ledger.check_listed(flow.cairn.gateway)
    flow.ledger.check_content(flow.cairn.gateway)
    assert flow.cairn.run("verify", "--json").returncode == 0
    assert flow.landed * 3 >= count * 2, f"only {flow.landed} of {count} kills fell into a push"


def test_kill_of_the_node_during_pushes(cairn, folder, rng, long):
    kills(Flow(cairn, folder, rng, node_runs=True), 30 if long else 10)


def test_kill_of_direct_pushes(cairn, folder, rng, long):
    kills(Flow(cairn, folder, rng, node_runs=False), 30 if long else 10)


def test_a_killed_node_says_so_to_the_push_and_the_next_one_works(cairn, folder, rng):
    cairn.up()
    source = sample(folder / "source", rng, large=(256 * MIB,))
    push = cairn.start_push(source, "model")
    try:
        push.wait(0.1)
        raise AssertionError("a push of 256 MiB ended within 0.1 s")
    except subprocess.TimeoutExpired:
        cairn.kill()
    _, stderr = push.communicate(timeout=20)
    assert push.returncode == 1 and "error:" in stderr and "hint:" in stderr, stderr
    try:
        direct = cairn.push(source, "model")
    except Failed as failed:
        raise AssertionError(f"a socket left by a killed node is an obstacle: {failed}") from failed
    assert_published(cairn.up(), direct["repo"], direct["commit"], fingerprint(source))
