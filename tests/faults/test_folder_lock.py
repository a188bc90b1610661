"""One process per data folder, newer formats, loose key files, and an orderly end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from cairn import Cairn, wait_for
from folders import MIB, Ledger, assert_published, fingerprint, renew, sample
from hub import Hub, Refused, account, inline


def listing(data) -> dict:
    """Every file and folder with its size, times, mode and inode."""
    found = {}
    for path in [data, *data.rglob("*")]:
        state = path.lstat()
        found[str(path)] = (
            state.st_size,
            state.st_mtime_ns,
            state.st_ctime_ns,
            state.st_mode,
            state.st_ino,
        )
    return found


def refused(cairn, *arguments) -> str:
    """What a command says that must fail with exit code 1."""
    done = cairn.run(*arguments, seconds=20)
    assert done.returncode == 1, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
    assert "error:" in done.stderr and "hint:" in done.stderr, done.stderr
    assert "panicked" not in done.stderr, done.stderr
    return done.stderr


def test_a_second_node_on_an_open_folder_is_refused(cairn, folder, rng):
    cairn.up()
    source = sample(folder / "source", rng)
    answer = cairn.push(source, "model")
    for _ in range(3):
        said = refused(cairn, "up", "--gateway", "127.0.0.1:0")
        assert str(cairn.data) in said, said
    assert_published(cairn.gateway, answer["repo"], "main", fingerprint(source))
    cairn.push(source, "after")
    assert cairn.run("verify").returncode == 0
    assert cairn.stop() == 0
    cairn.up()
    assert_published(cairn.gateway, answer["repo"], "main", fingerprint(source))


def test_a_direct_verb_while_another_has_the_folder_open(cairn, folder, rng):
    """A direct push holds the folder: other verbs and a start say so, and do no harm."""
    small = sample(folder / "small", rng)
    cairn.push(small, "small")
    large = sample(folder / "large", rng, large=(128 * MIB,))
    push = cairn.start_push(large, "large")
    wait_for(lambda: cairn.temporary_files() or push.poll() is not None, 20, "the push writes")
    push.send_signal(signal.SIGSTOP)  # So that it does not end before the others came.
    try:
        for arguments in (
            ("ls",),
            ("verify",),
            ("gc",),
            ("push", str(small), "other"),
            ("up", "--gateway", "127.0.0.1:0"),
        ):
            assert str(cairn.data) in refused(cairn, *arguments)
    finally:
        push.send_signal(signal.SIGCONT)
    _, stderr = push.communicate(timeout=60)
    assert push.returncode == 0, stderr
    cairn.up()
    namespace = cairn.json("status")["namespace"]
    assert_published(cairn.gateway, f"{namespace}/large", "main", fingerprint(large))
    assert cairn.gateway.absent(f"{namespace}/other")
    assert cairn.run("verify").returncode == 0


def format_file(data):
    """The file that carries the data folder's format version."""
    found = [path for path in data.iterdir() if path.is_file() and "format" in path.name.lower()]
    assert len(found) == 1, f"which file of {os.listdir(data)} carries the format?"
    return found[0]


@pytest.mark.parametrize("newer", ["99", "4294967296", "18446744073709551616"])
def test_a_newer_format_is_refused_and_nothing_touched(cairn, folder, rng, newer):
    cairn.push(sample(folder / "source", rng), "model")
    path = format_file(cairn.data)
    text = path.read_text()
    assert "1" in text
    path.write_text(text.replace("1", newer))
    before = listing(cairn.data)
    for arguments in (
        ("up", "--gateway", "127.0.0.1:0"),
        ("ls",),
        ("verify",),
        ("gc",),
        ("doctor", "--rebuild"),
        ("push", str(folder / "source"), "model"),
    ):
        said = refused(cairn, *arguments)
        assert newer in said and "format" in said, said
        assert listing(cairn.data) == before, f"{arguments[0]} touched the folder"
    path.write_text(text)
    assert cairn.json("ls")["repositories"]


@pytest.mark.parametrize("content", ["", "\n", "one\n", "-1\n", "\x00\x00", "1" * 5000])
def test_a_format_file_that_is_none_is_refused(cairn, folder, rng, content):
    cairn.push(sample(folder / "source", rng), "model")
    path = format_file(cairn.data)
    path.write_text(content)
    assert path.name in refused(cairn, "up", "--gateway", "127.0.0.1:0")


def key_files(cairn) -> list:
    """The node's own: without them it is no node."""
    found = [path for path in (cairn.data / "keys").iterdir() if path.is_file()]
    assert len(found) >= 2, "a node key and a namespace root key"
    return found


def account_keys(cairn) -> list:
    return list((cairn.data / "keys" / "accounts").iterdir())


def test_keys_are_made_for_their_owner_only(cairn):
    cairn.up()
    assert account_keys(cairn), "the owner's"
    for path in key_files(cairn) + account_keys(cairn):
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.parent.stat().st_mode & 0o077 == 0, path.parent


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o666])
def test_key_files_that_others_may_read_or_write_are_refused(cairn, mode):
    cairn.up()
    assert cairn.stop() == 0
    for path in key_files(cairn):
        path.chmod(mode)
        said = refused(cairn, "up", "--gateway", "127.0.0.1:0")
        assert path.name in said and "chmod" in said, said
        path.chmod(0o600)
    cairn.up()


@pytest.mark.parametrize("harm", ["empty", "short", "junk", "gone"])
def test_damaged_keys_are_refused_and_never_replaced(cairn, harm):
    """A lost root key must not be silently replaced by a new one: that would be another namespace."""
    cairn.up()
    namespace = cairn.json("status")["namespace"]
    assert cairn.stop() == 0
    for path in key_files(cairn):
        content = path.read_bytes()
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "short": content[:-5], "junk": b"\xff" * 64}[harm])
        assert path.name in refused(cairn, "up", "--gateway", "127.0.0.1:0")
        path.write_bytes(content)
        path.chmod(0o600)
    cairn.up()
    assert cairn.json("status")["namespace"] == namespace


@pytest.mark.parametrize("harm", ["short", "another's", "gone", "readable"])
def test_an_account_without_its_key_does_not_take_the_node_along(cairn, harm):
    """It can't publish, and hears why; others can; with its file from a copy it can again."""
    cairn.up()
    ada, bob = account(cairn, "ada"), account(cairn, "bob")
    repos = {who: Hub(cairn.gateway, who).create("model") for who in (ada, bob)}
    assert cairn.stop() == 0

    def publishes(who) -> bool:
        try:
            Hub(cairn.gateway, who).commit(repos[who], [inline(f"{time.time_ns()}.txt", b"x")])
        except Refused as refused:
            assert refused.status == 500 and b"keys" in refused.answer.body, refused
            assert os.fsencode(cairn.data) not in refused.answer.body
            return False
        return True

    whole = {path: path.read_bytes() for path in account_keys(cairn)}
    broken = 0
    for path, content in whole.items():
        other = next(text for at, text in whole.items() if at != path)
        match harm:
            case "short":
                path.write_bytes(content[:-5])
            case "another's":
                path.write_bytes(other)
            case "gone":
                path.unlink()
            case "readable":
                path.chmod(0o640)
        cairn.up()
        assert path.name in cairn.logged(), cairn.logged()
        broken += [publishes(ada), publishes(bob)].count(False)
        assert cairn.stop() == 0
        path.write_bytes(content)
        path.chmod(0o600)
    assert len(whole) == 3 and broken == 2, "the owner's, and those of two that publish"
    cairn.up()
    assert publishes(ada) and publishes(bob)
    assert "keys" not in cairn.logged()


def test_stale_socket_and_lock_after_a_kill_are_no_obstacle(cairn, folder, rng):
    source = sample(folder / "source", rng)
    for number in range(4):
        cairn.up()
        cairn.kill()
        assert any(path.is_socket() for path in cairn.data.iterdir()), "no socket was left"
        renew(source, rng)
        answer = cairn.push(source, "model")
        assert cairn.json("ls")["repositories"]
        assert_published(cairn.up(), answer["repo"], answer["commit"], fingerprint(source))
        assert cairn.stop() == 0
    leftovers = [path.name for path in cairn.data.iterdir() if path.is_socket()]
    assert leftovers == [], "an orderly end leaves its socket"


@pytest.mark.parametrize("verb", [("up", "--gateway", "127.0.0.1:0"), ("ls",), ("gc",)])
def test_a_folder_that_is_something_else_is_refused(cairn, verb):
    cairn.data.mkdir()
    (cairn.data / "thesis.tex").write_text("do not touch")
    before = listing(cairn.data)
    assert str(cairn.data) in refused(cairn, *verb)
    assert listing(cairn.data) == before


def test_sigterm_under_load_drains_and_ends_in_seconds(cairn, folder, rng):
    gateway = cairn.up()
    ledger = Ledger(folder / "ledger")
    large = sample(folder / "large", rng, large=(256 * MIB,))
    ledger.add(answer := cairn.push(large, "large"), fingerprint(large))
    path = gateway.file_path(answer["repo"], "main", "weights-00.safetensors")
    stalled = [slow_reader(gateway, path) for _ in range(20)]
    idle = [socket.create_connection((gateway.host, gateway.port)) for _ in range(20)]
    ended = threading.Event()
    bad = []

    def small_requests():
        """Whole answers only, until the node stops taking connections."""
        while not ended.is_set():
            try:
                got = gateway.get(gateway.file_path(answer["repo"], "main", "config.json"))
            except OSError:
                return  # Not taken any more.
            except Exception as error:
                bad.append(error)
                return
            if got.status != 200:
                bad.append(got)

    threads = [threading.Thread(target=small_requests, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    renew(large, rng)
    push = cairn.start_push(large, "interrupted")
    with contextlib.suppress(subprocess.TimeoutExpired):
        push.wait(0.15)
    start = time.monotonic()
    code = cairn.stop(seconds=6)
    seconds = time.monotonic() - start
    ended.set()
    stdout, stderr = push.communicate(timeout=20)
    for connection in stalled + idle:
        connection.close()
    for thread in threads:
        thread.join(10)
    print(f"ended within {seconds:.2f} s, exit code {code}; the push: {push.returncode} {stderr}")
    assert code == 0
    assert not bad, f"answers were cut: {bad[0]}"
    assert push.returncode in (0, 1) and "panicked" not in stderr + cairn.logged()
    if push.returncode == 0:
        ledger.add(json.loads(stdout), fingerprint(large))
    cairn.up()
    ledger.check_listed(cairn.gateway)
    ledger.check_content(cairn.gateway)
    assert cairn.run("verify").returncode == 0


def slow_reader(gateway, path):
    """A connection that asks for a large file and reads none of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((gateway.host, gateway.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    return connection


def test_a_copied_data_folder_is_a_folder_of_its_own(cairn, folder, rng):
    cairn.push(sample(folder / "source", rng), "model")
    copy = Cairn(folder / "copy")
    shutil.copytree(cairn.data, copy.data)
    cairn.up()
    assert len(copy.json("ls")["repositories"]) == 1
