"""A publisher takes a branch back to what an earlier commit had."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from publisher import Account, Publisher, contents, refused, titles
from test_publish import noise, prose

BEFORE = {
    "README.md": b"---\nlicense: mit\n---\n# Before\n",
    "changed.txt": b"before\n",
    "gone.txt": b"gone\n",
    "moved/away.txt": prose(70_000),
    "same.txt": b"same\n",
    "changed.safetensors": noise(90_000, 1),
    "gone.safetensors": noise(80_000, 2),
}
AFTER = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# After\n",
    "changed.txt": b"after\n",
    "moved": b"a file where a folder was\n",
    "same.txt": b"same\n",
    "changed.safetensors": noise(90_000, 3),
    "new.txt": b"new\n",
    "new/weights.safetensors": noise(70_000, 4),
}


def become(account: Account, repo: str, now: dict[str, bytes], files: dict[str, bytes], **options: str) -> str:
    """Commits what makes these files of those that are there; the commit's id."""
    operations = [
        *(CommitOperationDelete(path) for path in now if path not in files),
        *(CommitOperationAdd(path, content) for path, content in files.items()),
    ]
    return account.api.create_commit(repo, operations, commit_message="Become", **options).oid


def blobs(account: Account, repo: str, revision: str) -> dict[str, tuple[str, bool]]:
    """Path to git id of each file, and whether it is LFS."""
    tree = account.api.list_repo_tree(repo, revision=revision, recursive=True)
    return {e.path: (e.blob_id, e.lfs is not None) for e in tree if isinstance(e, RepoFile)}


def restore(account: Account, repo: str, branch: str, earlier: str) -> str:
    """One commit, of what the server has already."""
    now, then = (blobs(account, repo, revision) for revision in (branch, earlier))
    operations = [
        *(CommitOperationDelete(path) for path in now if path not in then),
        *(CommitOperationCopy(path, path, src_revision=earlier) for path in then),
    ]
    commit = account.api.create_commit(
        repo, operations, commit_message=f"Restore {earlier}", revision=branch
    )
    return commit.oid


@pytest.mark.parametrize("private", [False, True])
def test_a_commit_restores_an_earlier_one(
    publisher: Publisher, ada: Account, upload_path: str, private: bool
) -> None:
    repo = publisher.repo(ada, private=private)
    first = become(ada, repo, {}, BEFORE)
    become(ada, repo, BEFORE, AFTER)
    restored = restore(ada, repo, "main", first)
    assert contents(ada, repo) == BEFORE
    assert blobs(ada, repo, "main") == blobs(ada, repo, first)
    assert ada.api.model_info(repo).card_data.license == "mit"
    assert ada.api.model_info(repo).sha == restored
    assert titles(ada, repo) == [f"Restore {first}", "Become", "Become", "initial commit"]
    # Nothing was lost by it.
    second = ada.api.list_repo_commits(repo)[1].commit_id
    assert contents(ada, repo, revision=second) == AFTER
    restore(ada, repo, "main", second)
    assert contents(ada, repo) == AFTER


def test_who_may_write_restores_a_branch(publisher: Publisher, ada: Account, bob: Account) -> None:
    repo = publisher.repo(ada, private=True)
    publisher.grant(repo, bob.name, "write")
    first = become(ada, repo, {}, BEFORE)
    ada.api.create_branch(repo, branch="feature/one")
    there = become(bob, repo, BEFORE, AFTER, revision="feature/one")
    restore(bob, repo, "feature/one", first[:8])
    assert contents(bob, repo, revision="feature/one") == BEFORE
    publisher.grant(repo, bob.name, "read")
    with refused(403):
        restore(bob, repo, "feature/one", there)


def test_a_branch_is_made_anew_at_an_earlier_commit(publisher: Publisher, ada: Account, tmp_path: Path) -> None:
    repo = publisher.repo(ada)
    first = become(ada, repo, {}, BEFORE)
    become(ada, repo, BEFORE, AFTER)
    ada.api.create_branch(repo, branch="restored", revision=first)
    assert contents(ada, repo, revision="restored") == BEFORE
    # A branch that is there is not moved by that.
    ada.api.create_branch(repo, branch="restored", revision="main", exist_ok=True)
    assert contents(ada, repo, revision="restored") == BEFORE
    ada.api.delete_branch(repo, branch="restored")
    done = publisher.hf(
        *("repos", "branch", "create", repo, "restored", "--revision", "main"), home=tmp_path, account=ada
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(ada, repo, revision="restored") == AFTER
