"""A folder that changes while it is pushed: noticed, never silently half-read.

Each version of the file describes itself: every block of 4 KiB begins with the version's number,
the block's place and the number of blocks. A downloaded file is a complete version or a defect.

No reader can tell that a file at rest is half of what its writer has in mind. So the file is large
and at least half there at any time: reading it takes several times as long as the writer ever
pauses, and what comes and goes is made elsewhere and renamed into place.
"""

import os
import struct
import threading

import pytest

from folders import MIB, sample

BLOCK = 4096
HEADER = struct.Struct("<QQQ")
NAME = "weights-00.safetensors"


def version(number: int, blocks: int) -> bytes:
    """The whole content of a version."""
    filling = bytes((number * 31 + i) & 0xFF for i in range(BLOCK - HEADER.size))
    return b"".join(HEADER.pack(number, place, blocks) + filling for place in range(blocks))


def complete_version(content: bytes) -> bool:
    """Whether these bytes are one version, whole."""
    if not content or len(content) % BLOCK:
        return False
    number, _, blocks = HEADER.unpack_from(content)
    return content == version(number, blocks)


class Writer(threading.Thread):
    """Changes a file in a loop in one way until it is stopped."""

    def __init__(self, path, blocks: int, change):
        super().__init__(daemon=True)
        self.path = path
        self.blocks = blocks
        self.change = change
        self.number = 1
        self.ended = threading.Event()
        self.path.write_bytes(version(1, blocks))

    def run(self):
        while not self.ended.is_set():
            self.number += 1
            self.change(self)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


def write_at(file, content: bytes, first: int, last: int):
    """Writes a part of the content at its place, a piece at a time."""
    file.seek(first)
    for start in range(first, last, MIB // 2):
        file.write(content[start : min(start + MIB // 2, last)])


def rewrite(writer):
    """Overwrites in place, the same size."""
    content = version(writer.number, writer.blocks)
    with open(writer.path, "r+b", buffering=0) as file:
        write_at(file, content, 0, len(content))


def truncate(writer):
    """Cuts to the half, then writes anew to another size."""
    content = version(writer.number, writer.blocks + writer.number % 7)
    with open(writer.path, "r+b", buffering=0) as file:
        file.truncate(len(content) // 2)
        write_at(file, content, 0, len(content))


def append(writer):
    """Writes the half, cuts there, and grows to the whole."""
    content = version(writer.number, writer.blocks)
    half = len(content) // 2
    with open(writer.path, "r+b", buffering=0) as file:
        write_at(file, content, 0, half)
        file.truncate(half)
        write_at(file, content, half, len(content))


def rename(writer):
    """Replaces the file by another one, as careful programs do."""
    beside = writer.path.parent.parent / "next"
    beside.write_bytes(version(writer.number, writer.blocks + writer.number % 5))
    os.replace(beside, writer.path)


def replace(writer):
    """Removes the file and puts another one there: between, there is none."""
    beside = writer.path.parent.parent / "next"
    beside.write_bytes(version(writer.number, writer.blocks))
    writer.path.unlink()
    os.replace(beside, writer.path)


@pytest.mark.parametrize("change", [rewrite, truncate, append, rename, replace])
def test_changing_file_is_noticed_or_read_whole(cairn, folder, rng, long, change):
    gateway = cairn.up()
    source = sample(folder / "source", rng, large=())
    blocks = 64 * MIB // BLOCK
    refused = 0
    pushes = 25 if long else 6
    with Writer(source / NAME, blocks, change):
        for number in range(pushes):
            name = f"model-{number}"
            done = cairn.run("push", str(source), name, "--json")
            repo = f"{cairn.json('status')['namespace']}/{name}"
            if done.returncode == 0:
                got = gateway.get(gateway.file_path(repo, "main", NAME))
                if change is replace and got.status == 404:
                    assert NAME not in {entry["path"] for entry in gateway.tree(repo, "main")}
                    continue  # There was none when the folder was listed.
                assert got.status == 200
                assert complete_version(got.body), f"push {number} published a half-read file"
            else:
                refused += 1
                assert done.returncode == 1 and "error:" in done.stderr, done.stderr
                assert NAME in done.stderr, f"does not name the file: {done.stderr}"
                assert gateway.absent(repo), "half visible"
    print(f"{refused} of {pushes} pushes refused")
    if change in (rewrite, truncate, append):
        assert refused, "the file changed all the time and no push noticed"
    answer = cairn.push(source, "at-rest")
    got = gateway.get(gateway.file_path(answer["repo"], "main", NAME))
    assert got.body == (source / NAME).read_bytes(), "a file at rest is not what was published"
    assert cairn.temporary_files() == [], "refused pushes leave temporary files"
    assert cairn.run("verify").returncode == 0


def test_a_change_between_two_pushes_is_seen_even_where_size_and_time_are_equal(cairn, folder, rng):
    """Tools that restore times (`cp -p`, `rsync -t`, `tar`) must not hide a change."""
    gateway = cairn.up()
    source = sample(folder / "source", rng)
    path = source / NAME
    first = path.stat()
    one = cairn.push(source, "model")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    beside = folder / "beside"
    beside.write_bytes(content)
    os.replace(beside, path)
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns))
    two = cairn.push(source, "model")
    assert one["commit"] != two["commit"], "the change was not seen"
    assert gateway.get(gateway.file_path(two["repo"], "main", NAME)).body == content


def test_rewriting_right_after_a_push_is_seen_by_the_next_one(cairn, folder, rng, long):
    gateway = cairn.up()
    source = sample(folder / "source", rng, large=(200_000,), small=0)
    path = source / NAME
    for number in range(60 if long else 12):
        content = version(number + 1, 200_000 // BLOCK)
        with open(path, "r+b") as file:
            file.write(content)
            file.truncate()
        answer = cairn.push(source, "model")
        got = gateway.get(gateway.file_path(answer["repo"], answer["commit"], NAME))
        assert got.body == content, f"push {number} took an older version for this one"


def test_files_that_vanish_and_appear(cairn, folder, rng):
    """Many small files come and go during pushes: each push publishes a true listing or refuses."""
    gateway = cairn.up()
    source = sample(folder / "source", rng, large=(8 * MIB,), small=300)
    vanishing = [source / f"part/{number:04}.txt" for number in range(0, 300, 3)]
    content = {path: path.read_bytes() for path in vanishing}
    ended = threading.Event()

    def come_and_go():
        while not ended.is_set():
            for path in vanishing:
                path.unlink()
            for path in vanishing:
                (folder / "next").write_bytes(content[path])
                os.replace(folder / "next", path)

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    try:
        for number in range(6):
            done = cairn.run("push", str(source), f"model-{number}", "--json")
            repo = f"{cairn.json('status')['namespace']}/model-{number}"
            if done.returncode != 0:
                assert done.returncode == 1 and "part/" in done.stderr, done.stderr
                assert gateway.absent(repo)
                continue
            for entry in gateway.tree(repo, "main"):
                path = source / entry["path"]
                if path in content:
                    got = gateway.get(gateway.file_path(repo, "main", entry["path"]))
                    assert got.body == content[path], f"{entry['path']} was half-read"
    finally:
        ended.set()
        thread.join()
