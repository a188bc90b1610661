"""`gc` frees what nothing names or pins, says so beforehand, and never takes anything else."""

import contextlib
import random
import subprocess
import threading

import pytest

from folders import MIB, Ledger, assert_published, fingerprint, renew, sample


def disk_bytes(cairn) -> int:
    """Bytes of everything below the data folder, the views aside."""
    return sum(
        path.stat().st_blocks * 512
        for part in ("blobs", "log", "tmp")
        for path in (cairn.data / part).rglob("*")
        if path.is_file()
    )


def without_mode(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name != "dry_run"}


def refused_push(cairn, source):
    """Leaves content that nothing names: a push that is refused after its large files were stored."""
    push = cairn.start_push(source, "never")
    known = set(cairn.blob_paths())
    while push.poll() is None and not set(cairn.blob_paths()) - known:
        pass
    cairn.kill()
    push.communicate(timeout=20)
    left = set(cairn.blob_paths()) - known
    return left


@pytest.fixture
def orphans(cairn, folder, rng):
    """A node with two repositories and content of a killed push that nothing names."""
    ledger = Ledger(folder / "ledger")
    kept = sample(folder / "kept", rng, large=(4 * MIB,))
    cairn.up()
    for name in ("kept", "kept-too"):
        ledger.add(cairn.push(kept, name), fingerprint(kept))
        renew(kept, rng)
        ledger.add(cairn.push(kept, name), fingerprint(kept))
    left = set()
    for number in range(10):
        lost = sample(folder / f"lost-{number}", rng, large=(24 * MIB,) * 6, small=0)
        left |= refused_push(cairn, lost)
        cairn.up()
        if left:
            break
    namespace = cairn.json("status")["namespace"]
    assert cairn.gateway.absent(f"{namespace}/never")
    assert left, "no kill left content without a name"
    return ledger, left


def test_gc_frees_what_nothing_names_and_says_so_beforehand(cairn, orphans):
    ledger, left = orphans
    before = disk_bytes(cairn)
    said = cairn.json("gc", "--dry-run")
    assert disk_bytes(cairn) == before, "a dry run frees"
    assert all(path.exists() for path in left)
    assert without_mode(cairn.json("gc", "--dry-run")) == without_mode(said)
    done = cairn.json("gc")
    assert without_mode(done) == without_mode(said), "gc did other than it said"
    freed = before - disk_bytes(cairn)
    wanted = 24 * MIB * len(left)
    assert freed >= wanted * 0.9, f"{freed} bytes freed of {wanted}"
    assert done["freed_bytes"] >= wanted and done["blobs"] + done["strays"] >= len(left), done
    assert not any(path.exists() for path in left)
    ledger.check_listed(cairn.gateway)
    ledger.check_content(cairn.gateway)
    assert cairn.run("verify").returncode == 0
    again = cairn.json("gc")
    assert all(again[name] == 0 for name in ("blobs", "bytes", "strays")), again
    # The verification above may have replaced notes in the log, which compaction takes out.
    assert again["freed_bytes"] < 64 << 10, again
    cairn.kill()
    cairn.up()
    ledger.check_content(cairn.gateway)


def test_gc_of_a_stopped_node_does_the_same(cairn, orphans):
    ledger, left = orphans
    assert cairn.stop() == 0
    said = cairn.json("gc", "--dry-run")
    assert without_mode(cairn.json("gc")) == without_mode(said)
    assert not any(path.exists() for path in left)
    cairn.up()
    ledger.check_content(cairn.gateway)


def test_history_tags_and_pins_survive_gc(cairn, folder, rng):
    cairn.up()
    ledger = Ledger(folder / "ledger")
    source = sample(folder / "source", rng, large=(2 * MIB,), small=10)
    for name, options in (("model", ()), ("data", ("--dataset",)), ("model", ("--ref", "side"))):
        for _ in range(3):
            answer = cairn.push(source, name, *options)
            if name == "model" and not options:
                ledger.add(answer, fingerprint(source))
            renew(source, rng)
    cairn.json("pin", "local/model")
    for _ in range(2):
        cairn.json("gc")
        ledger.check_listed(cairn.gateway)
        ledger.check_content(cairn.gateway)
        assert cairn.run("verify").returncode == 0
    cairn.json("unpin", "local/model")
    cairn.json("gc")
    ledger.check_content(cairn.gateway)


def test_content_shared_by_two_repositories_survives(cairn, folder, rng, orphans):
    ledger, _ = orphans
    shared = sample(folder / "shared", rng, large=(3 * MIB,))
    ledger.add(cairn.push(shared, "one"), fingerprint(shared))
    ledger.add(cairn.push(shared, "two"), fingerprint(shared))
    cairn.json("gc")
    ledger.check_content(cairn.gateway)


def test_pushes_and_gc_at_once(cairn, folder, rng, long):
    """Writers push, replace and push the same content again while collections run one after another."""
    cairn.up()
    ledger = Ledger(folder / "ledger")
    lock = threading.Lock()
    ended = threading.Event()
    wrong = []
    seeds = [rng.getrandbits(64) for _ in range(4)]
    common = sample(folder / "common", rng, large=(6 * MIB, 100_000), small=5)

    def write(number):
        own = random.Random(seeds[number])
        source = sample(folder / f"writer-{number}", own, large=(4 * MIB, 90_000), small=5)
        try:
            for turn in range(40 if long else 8):
                used = common if turn % 3 == 2 else source
                answer = cairn.push(used, f"writer-{number}")
                with lock:
                    ledger.add(answer, fingerprint(used))
                assert_published(cairn.gateway, answer["repo"], answer["commit"], fingerprint(used))
                renew(source, own)
        except BaseException as error:
            wrong.append(error)

    def collect():
        try:
            while not ended.is_set():
                cairn.json("gc")
                cairn.json("gc", "--dry-run")
        except BaseException as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    collector = threading.Thread(target=collect)
    for thread in [*writers, collector]:
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    collector.join()
    assert not wrong, wrong[0]
    cairn.json("gc")
    ledger.check_listed(cairn.gateway)
    ledger.check_content(cairn.gateway)
    assert cairn.run("verify").returncode == 0
    cairn.kill()
    cairn.up()
    ledger.check_content(cairn.gateway)


def test_kill_during_gc(cairn, orphans, folder, rng, long):
    """A collection cut off at any instant loses nothing and is finished by the next one."""
    ledger, _ = orphans
    for number in range(20 if long else 5):
        lost = sample(folder / "lost-again", rng, large=(24 * MIB,) * 4, small=0)
        refused_push(cairn, lost)
        cairn.up()
        collection = subprocess.Popen(
            cairn.command("gc"),
            env=cairn.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            collection.wait(rng.uniform(0.0, 0.06))
        cairn.kill()
        collection.communicate(timeout=20)
        cairn.up()
        assert cairn.temporary_files() == []
        ledger.check_listed(cairn.gateway)
        ledger.check_content(cairn.gateway)
        cairn.json("gc")
        assert cairn.run("verify").returncode == 0, f"after kill {number}"
