"""Folders to publish, what is in them by hash, and whether a gateway shows exactly that."""

import hashlib
import json
import os
import random
from pathlib import Path

MIB = 1 << 20

# Added by a push where a folder has none of its own.
ADDED = {".gitattributes"}


def write_file(path: Path, content: bytes):
    """Writes a file, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sample(folder: Path, rng: random.Random, large=(1 * MIB,), small=4, name="sample") -> Path:
    """Makes a folder like a model's: a card, a configuration, small files, and large ones."""
    card = f"---\nlicense: mit\ntags:\n- {name}\n---\n# {name} {rng.getrandbits(64):x}\n"
    write_file(folder / "README.md", card.encode())
    write_file(folder / "config.json", json.dumps({"nonce": rng.getrandbits(64)}).encode())
    for number in range(small):
        write_file(folder / f"part/{number:04}.txt", rng.randbytes(1000).hex().encode())
    for number, size in enumerate(large):
        write_random(folder / f"weights-{number:02}.safetensors", rng, size)
    return folder


def write_random(path: Path, rng: random.Random, size: int):
    """Writes `size` random bytes without holding them all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for start in range(0, size, 8 * MIB):
            file.write(rng.randbytes(min(8 * MIB, size - start)))


def renew(folder: Path, rng: random.Random):
    """Changes a few bytes of each file, so that all content is new to a store."""
    for path in files(folder):
        token = f"{rng.getrandbits(64):016x}"
        if path.name == "README.md":
            with open(path, "a") as file:
                file.write(token + "\n")
        elif path.name == "config.json":
            path.write_text(json.dumps({"nonce": token}))
        else:
            with open(path, "r+b") as file:
                file.write(token.encode())


def files(folder: Path) -> list:
    """Paths of all regular files."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(folder: Path) -> dict:
    """Path within the folder → SHA-256."""
    return {str(path.relative_to(folder)): file_sha256(path) for path in files(folder)}


def assert_published(gateway, repo: str, revision: str, content: dict, prefix=""):
    """The gateway shows exactly these files at a revision, and each one's bytes."""
    plural = prefix.rstrip("/") or "models"
    shown = {
        entry["path"] for entry in gateway.tree(repo, revision, plural) if entry["type"] == "file"
    }
    assert shown - ADDED == set(content) - ADDED, f"{repo} at {revision} lists other files"
    for path, sha256 in content.items():
        got = gateway.file(repo, revision, path, prefix)
        assert got.status == 200, (
            f"{path} of {repo} at {revision}: {got.status} {got.start[:300]!r}"
        )
        assert got.sha256 == sha256, f"{path} of {repo} at {revision} has other bytes"
        assert got.headers["X-Repo-Commit"], f"{path} of {repo} names no commit"


class Ledger:
    """Every acknowledged push, kept outside the node and fsynced before anything else happens."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, acknowledged: dict, content: dict):
        """Notes a push that was answered with success."""
        line = {"repo": acknowledged["repo"], "commit": acknowledged["commit"], "files": content}
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list:
        """All notes, oldest first."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def newest(self, repo: str):
        """The last note of a repository, or None."""
        return next((line for line in reversed(self.lines()) if line["repo"] == repo), None)

    def check_listed(self, gateway):
        """Every acknowledged repository is listed and its history holds every acknowledged commit."""
        lines = self.lines()
        listed = set(gateway.listed())
        for repo in {line["repo"] for line in lines}:
            assert repo in listed, f"{repo} was acknowledged and is not listed"
            history = set(gateway.commits(repo))
            for line in lines:
                if line["repo"] == repo:
                    assert line["commit"] in history, f"{line['commit']} of {repo} is lost"

    def check_content(self, gateway):
        """Every file of every acknowledged commit downloads with its hash."""
        for line in self.lines():
            assert_published(gateway, line["repo"], line["commit"], line["files"])
