"""A peer that stops without a word: its process is there, its connections stay open, and nothing comes."""

import signal
import time

import pytest

from cairn import Cairn, wait_for
from folders import MIB, renew
from test_pull_kill import start_pull, wait_until
from two_nodes import Two

LARGE = (96 * MIB, 48 * MIB)
# What a pull may take at most where one of two sources falls silent, and to give up on the only one.
OTHER_SECONDS = 60
PATIENCE_SECONDS = 60


@pytest.fixture
def two(folder, rng):
    made = Two(folder, rng, large=LARGE, small=4)
    # Slow enough that it stops in the middle, on any machine.
    made.source.environment["CAIRN_UPLOAD_RATE"] = str(40 * MIB)
    made.up()
    yield made
    if made.source.process is not None:
        made.source.process.send_signal(signal.SIGCONT)
    made.close()


def test_the_other_source_is_turned_to(two, folder):
    second = Cairn(folder / "second", peers=[two.source])
    try:
        pushed = two.publish("model")
        second.up()
        wait_for(lambda: second.json("peers")["peers"], 30, "the second one is connected")
        second.json("pull", pushed["repo"])
        two.sink.stop()
        two.sink.peers.append(second)
        two.sink.up()
        wait_for(lambda: len(two.sink.json("peers")["peers"]) == 2, 30, "both are connected")
        pull = start_pull(two.sink, pushed["repo"], "--to", str(folder / "out"))
        assert wait_until(0.3, pull), "it still runs"
        two.source.process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        stdout, stderr = pull.communicate(timeout=300)
        took = time.monotonic() - begin
        assert pull.returncode == 0, f"{stdout}{stderr}; the log: {two.sink.logged()}"
        assert took <= OTHER_SECONDS, f"{took:.1f} s"
        print(f"the pull ended {took:.1f} s after one of its two sources fell silent")
        two.check(folder / "out")
    finally:
        second.close()


def test_the_only_source_is_given_up_in_time_and_taken_back(two, folder):
    pushed = two.publish("model")
    pull = start_pull(two.sink, pushed["repo"])
    assert wait_until(1, pull), "it still runs"
    before = two.sent()
    two.source.process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    _, stderr = pull.communicate(timeout=300)
    took = time.monotonic() - begin
    assert pull.returncode == 1 and "error:" in stderr and "hint:" in stderr, stderr
    assert took <= PATIENCE_SECONDS, f"{took:.1f} s"
    two.source.process.send_signal(signal.SIGCONT)
    begin = time.monotonic()
    two.connected()
    two.sink.json("pull", pushed["repo"], "--to", str(folder / "out"))
    print(
        f"given up after {took:.1f} s; awake again, all was here {time.monotonic() - begin:.1f} s later,"
        f" {two.sent() - before} of {two.size()} bytes after {before}"
    )
    two.check(folder / "out")
    assert two.sink.partial_files() == []
    renew(two.tree, two.rng)
    two.publish("next")
