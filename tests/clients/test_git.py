"""Ids are git's own: every tree and commit is made again with the `git` command and compared."""

import os
import subprocess
from pathlib import Path

import pytest
from cairn import AUTHOR_EMAIL, AUTHOR_NAME, Published
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile, RepoFolder
from pointers import pointer
from samples import EXECUTABLE, Samples


class Git:
    """A repository of git's own, in which the same content is committed once more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self("init", "--quiet", "--bare", ".")

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> bytes:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            check=True,
            env=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"} | environment,
        ).stdout

    def tree(self, files: dict[str, tuple[str, bytes]]) -> str:
        """Writes files (path to mode and content) as a tree; returns its id."""
        self("read-tree", "--empty")
        lines = []
        for path, (mode, content) in files.items():
            oid = self("hash-object", "-w", "--stdin", stdin=content).decode().strip()
            lines.append(f"{mode} {oid}\t{path}".encode() + b"\0")
        self("update-index", "-z", "--index-info", stdin=b"".join(lines))
        return self("write-tree").decode().strip()

    def entries(self, tree: str) -> set[tuple[str, str, str]]:
        """Type, id and path of all that stands below a tree."""
        listing = self("ls-tree", "-r", "-t", "-z", tree).decode()
        return {
            (header.split()[1], header.split()[2], path)
            for header, path in (line.split("\t", 1) for line in listing.split("\0") if line)
        }

    def commit(self, tree: str, parents: list[str], time: int, message: bytes) -> str:
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (
                ("NAME", AUTHOR_NAME),
                ("EMAIL", AUTHOR_EMAIL),
                ("DATE", f"{time} +0000"),
            )
        }
        arguments = [word for parent in parents for word in ("-p", parent)]
        made = self("commit-tree", tree, *arguments, stdin=message, **who)
        return made.decode().strip()


@pytest.fixture
def git(tmp_path: Path) -> Git:
    folder = tmp_path / "git"
    folder.mkdir()
    return Git(folder)


def served_entries(api: HfApi, published: Published) -> list[RepoFile | RepoFolder]:
    return list(
        api.list_repo_tree(
            published.repo, recursive=True, revision=published.commit, repo_type=published.kind
        )
    )


def committed_files(api: HfApi, published: Published) -> dict[str, tuple[str, bytes]]:
    """What git would have committed: LFS files as pointers, the default attributes included."""
    attributes = hf_hub_download(
        published.repo, ".gitattributes", revision=published.commit, repo_type=published.kind
    )
    contents = published.files() | {".gitattributes": Path(attributes).read_bytes()}
    large = {e.path for e in served_entries(api, published) if isinstance(e, RepoFile) and e.lfs}
    return {
        path: (
            "100755" if path == EXECUTABLE else "100644",
            pointer(content) if path in large else content,
        )
        for path, content in contents.items()
    }


@pytest.mark.parametrize("name", ["odd", "tiny_bert", "parquet", "minilm", "wide"])
def test_every_tree_and_blob_has_gits_id(
    api: HfApi, samples: Samples, git: Git, name: str
) -> None:
    published = getattr(samples, name)
    tree = git.tree(committed_files(api, published))
    served = {
        ("blob", e.blob_id, e.path) if isinstance(e, RepoFile) else ("tree", e.tree_id, e.path)
        for e in served_entries(api, published)
    }
    assert served == git.entries(tree)


def test_a_commit_has_gits_id(api: HfApi, samples: Samples, git: Git) -> None:
    first, second = samples.branches["first"], samples.branches["main"]
    parents: list[str] = []
    for published in (first, second):
        tree = git.tree(committed_files(api, published))
        shown = api.list_repo_commits(published.repo, revision=published.commit)[0]
        message = shown.title + (f"\n\n{shown.message}" if shown.message else "")
        time = int(shown.created_at.timestamp())
        commit = git.commit(tree, parents, time, message.encode() + b"\n")
        assert commit == published.commit
        parents = [commit]
