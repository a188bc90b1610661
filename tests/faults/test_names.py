"""Names and entries that no repository may hold: refused by name, and nothing is published."""

import os
import shutil
import socket
import tempfile
import unicodedata
from pathlib import Path

import pytest

from cairn import Cairn
from folders import sample


def symlink(target):
    return lambda path: os.symlink(target, path)


def regular(path):
    with open(path, "wb") as file:
        file.write(b"content")


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        # A socket's path is short; its folder may not be.
        here = os.getcwd()
        os.chdir(os.path.dirname(path))
        try:
            made.bind(os.path.basename(path))
        finally:
            os.chdir(here)


# What is made in the folder (bytes, since some are no UTF-8), how, and what the message must show.
ENTRIES = {
    "symlink to an absolute path": (b"passwd", symlink("/etc/passwd"), "passwd"),
    "symlink out of the folder": (b"out.txt", symlink("../outside.txt"), "out.txt"),
    "symlink out by a detour": (b"out.txt", symlink("part/../../outside.txt"), "out.txt"),
    "symlink to a folder outside": (b"weights", symlink(".."), "weights"),
    "symlink to nothing": (b"dangling", symlink("missing"), "dangling"),
    "symlink to itself": (b"loop", symlink("loop"), "loop"),
    "symlinked .gitattributes": (b".gitattributes", symlink("../outside.txt"), ".gitattributes"),
    "FIFO": (b"pipe.bin", os.mkfifo, "pipe.bin"),
    "socket": (b"listen.sock", unix_socket, "listen.sock"),
    "backslash": (b"a\\b.bin", regular, "b.bin"),
    "backslash and dots": (b"..\\evil.bin", regular, "evil.bin"),
    "drive": (b"C:\\evil.bin", regular, "evil.bin"),
    "share": (b"\\\\host\\evil.bin", regular, "evil.bin"),
    "encoded slash stays a name, a trailing dot does not": (b"%2e%2e%2f.", regular, "%2e%2e"),
    "three dots": (b"...", regular, "..."),
    "dots and a space": (b".. ", regular, ".. "),
    "folder of dots and a space": (b".. /evil.bin", regular, ".. "),
    "newline": (b"two\nlines.bin", regular, "lines.bin"),
    "carriage return": (b"two\rlines.bin", regular, "lines.bin"),
    "tab": (b"tab\tname.bin", regular, "name.bin"),
    "escape sequence": (b"red\x1b[31m.bin", regular, "red"),
    "bell": (b"bell\x07.bin", regular, "bell"),
    "delete": (b"del\x7f.bin", regular, "del"),
    "first control character": (b"\x01.bin", regular, ".bin"),
    "no UTF-8": (b"latin-\xe9.bin", regular, "latin-"),
    "UTF-8 of a surrogate": (b"half-\xed\xa0\x80.bin", regular, "half-"),
    "overlong UTF-8": (b"over-\xc0\xae.bin", regular, "over-"),
    ".GIT": (b".GIT/config", regular, ".GIT"),
    ".Git as a file": (b".Git", regular, ".Git"),
    ".git with a dot": (b".git./config", regular, ".git."),
    ".git with a space": (b".git /config", regular, ".git "),
    ".git below": (b"part/.giT/hooks/post-checkout", regular, ".giT"),
    ".git's short name": (b"git~1/config", regular, "git~1"),
    ".git's short name, upper case": (b"GIT~1", regular, "GIT~1"),
    ".git with an ignored character": (".g\u200cit/config".encode(), regular, "it"),
    ".git with a mark": (".git\u200d/config".encode(), regular, ".git"),
    ".git as a stream": (b".git::$INDEX_ALLOCATION/config", regular, ".git"),
    "trailing dot": (b"name.", regular, "name."),
    "trailing space": (b"name ", regular, "name "),
    "trailing dots": (b"name.txt..", regular, "name.txt.."),
    "folder with a trailing dot": (b"dir./file.bin", regular, "dir."),
    "folder with a trailing space": (b"dir /file.bin", regular, "dir "),
    "CON": (b"CON", regular, "CON"),
    "con.txt": (b"con.txt", regular, "con.txt"),
    "nul.tar.gz": (b"nul.tar.gz", regular, "nul.tar.gz"),
    "Aux folder": (b"Aux/file.bin", regular, "Aux"),
    "PRN": (b"prn.json", regular, "prn.json"),
    "COM1": (b"COM1", regular, "COM1"),
    "lpt9": (b"lpt9.log", regular, "lpt9.log"),
    "path of 1,025 bytes": (b"/".join([b"d" * 100] * 10) + b"/" + b"f" * 16, regular, "dddd"),
    "33 components": (b"/".join([b"d"] * 32) + b"/deepest.bin", regular, "d/d/d"),
}

COLLISIONS = {
    "files by case": ["Model.bin", "model.bin"],
    "folders by case": ["Dir/one.bin", "dir/two.bin"],
    "file and folder by case": ["Part-a", "part-A/file.bin"],
    "README by case": ["README.md", "readme.md"],
    "files by case beyond ASCII": ["\u00c9tude.bin", "\u00e9tude.bin"],
}

REPO_NAMES = [
    "../escape",
    "a/b/c",
    "/",
    "a/",
    "/a",
    "..",
    ".",
    "",
    "-option-like/name",
    "x.git",
    "a--b",
    "a..b",
    ".hidden",
    "trail.",
    "trail-",
    "sp ace",
    "a\\b",
    "new\nline",
    "n" * 97,
    "caf\u00e9",
    "api/name",
    "datasets/name",
    "%2e%2e/name",
    "someone-else/name",
    "k" + "a" * 52 + "/name",
]


@pytest.fixture(scope="module")
def cairn():
    """One node for all names: what one case leaves behind, the next one meets."""
    folder = Path(tempfile.mkdtemp(prefix="cairn-"))
    made = Cairn(folder / "data")
    made.up()
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def door(cairn, folder, rng):
    """A folder, and a function that pushes it and sees it refused by name."""
    source = sample(folder / "source", rng)
    (folder / "outside.txt").write_bytes(b"sentinel outside of the pushed folder")
    before = cairn.gateway.listed()

    def refused(shown: str):
        done = cairn.run("push", str(source), "refused", seconds=20)
        said = done.stderr
        assert done.returncode == 1, f"published: {done.stdout}{said}"
        assert "error:" in said and "panicked" not in said, said
        assert shown in said, f"does not name {shown!r}: {said!r}"
        control = [c for c in said if unicodedata.category(c) == "Cc" and c != "\n"]
        assert not control, f"prints control characters: {said!r}"
        assert cairn.gateway.listed() == before
        namespace = cairn.json("status")["namespace"]
        assert cairn.gateway.absent(f"{namespace}/refused")
        assert cairn.temporary_files() == []

    return source, refused


@pytest.mark.parametrize("case", ENTRIES)
def test_entry_is_refused_by_name(door, case):
    source, refused = door
    name, make, shown = ENTRIES[case]
    path = os.path.join(os.fsencode(source), *name.split(b"/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    make(path)
    refused(shown)


@pytest.mark.parametrize("case", COLLISIONS)
def test_names_that_collide_on_other_systems_are_refused(door, case):
    source, refused = door
    for name in COLLISIONS[case]:
        path = source / name
        path.parent.mkdir(exist_ok=True)
        regular(path)
    refused(COLLISIONS[case][1].split("/")[0])


def test_a_git_folder_is_never_published(door, cairn):
    """A clone's own `.git` may be left out, as the hub's clients do, or refused."""
    source, _ = door
    for name in (".git/config", "part/.git/config"):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("[core]\n\tsshCommand = evil\n")
    done = cairn.run("push", str(source), "clone", "--json", seconds=20)
    if done.returncode == 0:
        namespace = cairn.json("status")["namespace"]
        shown = {entry["path"] for entry in cairn.gateway.tree(f"{namespace}/clone", "main")}
        assert not any(".git" in path.split("/") for path in shown), shown
    else:
        assert done.returncode == 1 and ".git" in done.stderr, done.stderr


@pytest.mark.parametrize("name", REPO_NAMES)
def test_repository_name_is_refused(door, cairn, name):
    source, _ = door
    before = cairn.gateway.listed()
    done = cairn.run("push", "--", str(source), name, seconds=20)
    assert done.returncode in (1, 2), f"{name!r} is taken: {done.stdout}{done.stderr}"
    assert "error:" in done.stderr and "panicked" not in done.stderr, done.stderr
    assert cairn.gateway.listed() == before


@pytest.mark.parametrize("what", ["missing", "file"])
def test_folder_that_cannot_be_pushed(door, cairn, folder, what):
    before = cairn.gateway.listed()
    target = folder / what
    if what == "file":
        regular(target)
    done = cairn.run("push", str(target), what, seconds=20)
    assert done.returncode == 1, f"{done.stdout}{done.stderr}"
    assert "error:" in done.stderr and what in done.stderr, done.stderr
    assert cairn.gateway.listed() == before


def test_nothing_outside_the_pushed_folder_is_touched(door, folder):
    source, refused = door
    os.symlink("../outside.txt", source / "out.txt")
    before = (folder / "outside.txt").stat()
    refused("out.txt")
    after = (folder / "outside.txt").stat()
    assert (folder / "outside.txt").read_bytes().startswith(b"sentinel")
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
