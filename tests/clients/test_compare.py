"""Two revisions compared: the answer is what the `git` command prints of the same two trees."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from cairn import Node, Published
from http_client import api as api_target
from http_client import request
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from pointers import pointer
from publisher import Account, Publisher
from test_git import Git

SIDE_BYTES_MAX = 1 << 20
FILES_MAX = 1_000

# Path to mode and content.
Files = dict[str, tuple[str, bytes]]
PLAIN, EXECUTABLE = "100644", "100755"


@pytest.fixture
def git(tmp_path: Path) -> Git:
    folder = tmp_path / "git"
    folder.mkdir()
    return Git(folder)


def write(folder: Path, files: Files) -> Path:
    for name, (mode, content) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(int(mode[-3:], 8))
    return folder


def as_git(api: HfApi, published: Published, files: Files, attributes: bytes) -> Files:
    """The files as git has them: pointers where the commit says LFS."""
    tree = api.list_repo_tree(published.repo, revision=published.commit, recursive=True)
    lfs = {e.path for e in tree if isinstance(e, RepoFile) and e.lfs is not None}
    shown = {
        name: (mode, pointer(content) if name in lfs else content)
        for name, (mode, content) in files.items()
    }
    return shown | {".gitattributes": (PLAIN, attributes)}


def diff(git: Git, old: str, new: str) -> bytes:
    return git(
        *("-c", f"core.bigFileThreshold={SIDE_BYTES_MAX}", "diff"),
        *("--full-index", "--no-renames", "--no-color", "--no-ext-diff", old, new),
    )


def compare(node: Node, published: Published, range: str) -> str:
    # Its home has every file; another node fetches some of them, and says which it lacks.
    answer = request(node.home.url, api_target(published, "compare", range))
    assert answer.status == 200, answer.body
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    return answer.body.decode()


def lines(word: str, count: int) -> str:
    return "".join(f"{word} {at}\n" for at in range(count))


def scrambled(seed: int) -> tuple[bytes, bytes]:
    """A text of nested blocks, and what many edits made of it."""
    draw = random.Random(seed)
    words = ["def f():", "    if x:", "        y()", "    end", "", "}", "return", "größe"]
    old = [draw.choice(words) for _ in range(draw.randrange(1, 200))]
    new = list(old)
    for _ in range(draw.randrange(1, 12)):
        at = draw.randrange(len(new) + 1)
        new[at : at + draw.randrange(4)] = [draw.choice(words) for _ in range(draw.randrange(4))]
    end = draw.choice(["", "\n"])
    return "\n".join(old).encode(), ("\n".join(new) + end).encode()


BEFORE: Files = {
    "README.md": (PLAIN, b"# Title\n"),
    "deleted.txt": (PLAIN, b"one\ntwo\n"),
    "deleted-empty.txt": (PLAIN, b""),
    "changed.py": (PLAIN, ("def head():\n" + lines("    at", 60)).encode()),
    "no-newline.txt": (PLAIN, b"a\nb\nc"),
    "newline-goes.txt": (PLAIN, b"a\nb\nc\n"),
    "script.sh": (PLAIN, b"#!/bin/sh\n"),
    "script-changed.sh": (EXECUTABLE, b"#!/bin/sh\n"),
    "late-zero.txt": (PLAIN, b"a\n" * 1000 + b"\0b\n"),
    "weights.bin": (PLAIN, b"\0\1\2" * 100),
    "weights-deleted.safetensors": (PLAIN, b"\0\1\2" * 100),
    "large.txt": (PLAIN, b"line\n" * (SIDE_BYTES_MAX // 5 + 1)),
    "as large as may be.txt": (PLAIN, b"line" * (SIDE_BYTES_MAX // 4)),
    "größe/日本語.txt": (PLAIN, "Größe\n".encode()),
    "with space/a b.txt": (PLAIN, b"a\n"),
    "same/deep/er.txt": (PLAIN, b"same\n"),
    "file-or-folder": (PLAIN, b"a file\n"),
    "file-or-folder.txt": (PLAIN, b"sorts between\n"),
    "folder-or-file/a.txt": (PLAIN, b"in a folder\n"),
}

AFTER: Files = {
    "README.md": (PLAIN, b"# Title\n\n```\ndiff --git a/x b/x\n```\n"),
    "added.txt": (PLAIN, b"one\ntwo"),
    "added-empty.txt": (PLAIN, b""),
    "added/deep/er.txt": (PLAIN, b"x\n"),
    "changed.py": (
        PLAIN,
        ("def head():\n" + lines("    at", 60))
        .replace("    at 20\n", "    at twenty\n    and more\n")
        .replace("    at 27\n", "")
        .replace("    at 50\n", "")
        .encode(),
    ),
    "no-newline.txt": (PLAIN, b"a\nb\nC"),
    "newline-goes.txt": (PLAIN, b"a\nb\nc"),
    "script.sh": (EXECUTABLE, b"#!/bin/sh\n"),
    "script-changed.sh": (PLAIN, b"#!/bin/sh\necho\n"),
    "late-zero.txt": (PLAIN, b"a\n" * 1000 + b"\0c\n"),
    "weights.bin": (PLAIN, b"\0\1\3" * 100),
    "weights-added.safetensors": (PLAIN, b"\0\1\3" * 100),
    "large.txt": (PLAIN, b"line\n" * (SIDE_BYTES_MAX // 5) + b"last\n"),
    "as large as may be.txt": (PLAIN, b"LINE" * (SIDE_BYTES_MAX // 4)),
    "größe/日本語.txt": (PLAIN, "Größer\n".encode()),
    "with space/a b.txt": (PLAIN, b"b\n"),
    "same/deep/er.txt": (PLAIN, b"same\n"),
    "file-or-folder/a.txt": (PLAIN, b"in a folder\n"),
    "file-or-folder.txt": (PLAIN, b"sorts between them\n"),
    "folder-or-file": (PLAIN, b"a file\n"),
}


@pytest.fixture(scope="module")
def pushed(node: Node, samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list]:
    root = tmp_path_factory.mktemp("compare")
    yield [
        (node.push(write(root / name, files), "compare", message=name), files)
        for name, files in (("before", BEFORE), ("after", AFTER))
    ]


def trees(git: Git, api: HfApi, node: Node, pushed: list) -> list[str]:
    first = pushed[0][0]
    target = f"/{first.repo}/raw/{first.commit}/.gitattributes"
    attributes = request(node.home.url, target).body
    return [git.tree(as_git(api, published, files, attributes)) for published, files in pushed]


def test_every_kind_of_change_is_what_git_prints(git: Git, api: HfApi, node: Node, pushed: list) -> None:
    before, after = trees(git, api, node, pushed)
    (first, _), (second, _) = pushed
    shown = compare(node, first, f"{first.commit}..{second.commit}")
    assert shown == diff(git, before, after).decode()
    for part in (
        "deleted file mode 100644",
        "new file mode 100644",
        "old mode 100644\nnew mode 100755\n",
        "\\ No newline at end of file",
        "Binary files a/late-zero.txt and b/late-zero.txt differ",
        "Binary files a/large.txt and b/large.txt differ",
        "+oid sha256:",
        '"a/gr\\303\\266\\303\\237e/',
        "@@ def head():",
    ):
        assert part in shown, part
    # And back again.
    assert compare(node, first, f"{second.commit}..{first.commit}") == diff(git, after, before).decode()
    assert compare(node, first, f"{first.commit}..{first.commit}") == ""


def test_a_few_texts_are_had_wherever_they_are(node: Node, tmp_path: Path) -> None:
    texts = [{"a.txt": (PLAIN, b"a\n"), "b.txt": (PLAIN, b"b\n")}, {"a.txt": (PLAIN, b"A\n")}]
    first, second = (
        node.push(write(tmp_path / str(at), files), "compare-few") for at, files in enumerate(texts)
    )
    target = api_target(first, "compare", f"{first.commit}..{second.commit}")
    answers = [request(url, target) for url in (node.url, node.home.url)]
    assert answers[0].body == answers[1].body
    assert b"-a\n+A\n" in answers[0].body
    assert b"-b\n" in answers[0].body


def test_git_applies_it(git: Git, api: HfApi, node: Node, pushed: list) -> None:
    """Without what is no text, which no diff of texts can say."""
    (first, _), (second, _) = pushed
    before, after = trees(git, api, node, pushed)
    shown = "\n" + compare(node, first, f"{first.commit}..{second.commit}")
    parts = [f"diff --git {part}\n" for part in shown.removesuffix("\n").split("\ndiff --git ")[1:]]
    texts = "".join(part for part in parts if "Binary files" not in part)
    git("read-tree", before)
    git("apply", "--cached", "-", stdin=texts.encode())
    left = diff(git, git("write-tree").decode().strip(), after).decode()
    assert {line for line in left.splitlines() if line.startswith("diff")} == {
        "diff --git a/large.txt b/large.txt",
        "diff --git a/late-zero.txt b/late-zero.txt",
    }


def test_git_makes_the_new_files_of_edits_of_all_sorts(
    git: Git, api: HfApi, node: Node, tmp_path: Path
) -> None:
    texts = {f"{seed}.txt": scrambled(seed) for seed in range(300)}
    pushed = []
    for at in range(2):
        files = {name: (PLAIN, sides[at]) for name, sides in texts.items()}
        folder = write(tmp_path / str(at), files)
        pushed.append((node.push(folder, "compare-edits"), files))
    before, after = trees(git, api, node, pushed)
    (first, _), (second, _) = pushed
    shown = compare(node, first, f"{first.commit}..{second.commit}")
    git("read-tree", before)
    git("apply", "--cached", "-", stdin=shown.encode())
    assert git("write-tree").decode().strip() == after
    # Some edits can be told in several ways, of which git may choose another one.
    ours, theirs = (text.count("\n") for text in (shown, diff(git, before, after).decode()))
    assert ours < theirs * 1.1


def test_revisions_of_every_form(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada)

    def upload(path: str, content: str, revision: str | None = None) -> str:
        return ada.api.upload_file(
            path_or_fileobj=content.encode(), path_in_repo=path, repo_id=repo, revision=revision
        ).oid

    first = upload("a.txt", "a\n")
    ada.api.create_tag(repo, tag="v1")
    ada.api.create_branch(repo, branch="feature/one")
    there = upload("b.txt", "b\n", "feature/one")
    here = upload("c.txt", "c\n")

    def shown(range: str, query: str = "") -> list[str]:
        answer = request(publisher.url, f"/api/models/{repo}/compare/{range}{query}")
        assert answer.status == 200, answer.body
        text = answer.body.decode()
        return [line for line in text.splitlines() if line.startswith(("diff", "new", "deleted"))]

    added_b = ["diff --git a/b.txt b/b.txt", "new file mode 100644"]
    deleted_c = ["diff --git a/c.txt b/c.txt", "deleted file mode 100644"]
    feature = quote("feature/one", safe="")
    full = "refs/heads/feature/one"
    for other in (feature, "feature/one", full, quote(full, safe=""), there, there[:7]):
        for main in ("main", "HEAD", here, here[:8], "refs/heads/main"):
            assert shown(f"{main}..{other}") == added_b + deleted_c, (main, other)
            # Since they parted.
            assert shown(f"{main}...{other}", "?raw=true") == added_b, (main, other)
    for tag in ("v1", "refs/tags/v1", quote("refs/tags/v1", safe=""), first):
        assert shown(f"{tag}..feature/one") == shown(f"{tag}...feature/one") == added_b, tag

    for range, missing in (
        ("absent..main", "absent"),
        ("main..absent", "absent"),
        ("main...refs%2Fpr%2F1", "refs/pr/1"),
        (f"main..{'0' * 40}", "0" * 40),
        ("..main", ""),
    ):
        answer = request(publisher.url, f"/api/models/{repo}/compare/{range}")
        assert (answer.status, answer["X-Error-Code"]) == (404, "RevisionNotFound"), range
        assert answer.json()["error"] == f"Invalid rev id: {missing}"
    assert request(publisher.url, f"/api/models/{repo}/compare/main").status == 400
    assert request(publisher.url, f"/api/models/{repo}/compare/main..main", "POST", b"").status == 405

    ada.api.create_branch(repo, branch="apart")
    ada.api.super_squash_history(repo, branch="apart")
    assert shown("main..apart") == []
    answer = request(publisher.url, f"/api/models/{repo}/compare/main...apart")
    assert (answer.status, "in common" in answer.json()["error"]) == (400, True)


def test_a_long_answer_is_cut(node: Node, tmp_path: Path) -> None:
    many = write(tmp_path / "0", {"kept": (PLAIN, b"k\n")})
    first = node.push(many, "compare-long")
    write(many, {f"{at:04}.txt": (PLAIN, b"x\n") for at in range(FILES_MAX + 5)})
    second = node.push(many, "compare-long")
    shown = compare(node, first, f"{first.commit}..{second.commit}")
    assert shown.count("diff --git") == FILES_MAX
    assert shown.endswith("+x\nThe answer is cut here: more than 1000 files differ\n")
    large = write(tmp_path / "1", {f"{at}.txt": (PLAIN, b"x" * (1 << 20)) for at in range(9)})
    third = node.push(large, "compare-long", ref="large")
    shown = compare(node, first, f"{first.commit}..{third.commit}")
    assert len(shown) < 8 << 20
    assert shown.endswith("The answer is cut here: it is larger than 8388608 bytes\n")


def test_texts_that_are_slow_to_compare(git: Git, api: HfApi, node: Node, tmp_path: Path) -> None:
    """So many lines of so few kinds have too many things in common."""
    draw = random.Random(1)
    pushed = []
    for at in range(2):
        text = "".join(f"{letter}\n" for letter in draw.choices("ab", k=SIDE_BYTES_MAX // 2))
        files = {"a.txt": (PLAIN, text.encode())}
        pushed.append((node.push(write(tmp_path / str(at), files), "compare-slow"), files))
    before, after = trees(git, api, node, pushed)
    (first, _), (second, _) = pushed
    begin = time.monotonic()
    shown = compare(node, first, f"{first.commit}..{second.commit}")
    assert time.monotonic() - begin < 10
    git("read-tree", before)
    git("apply", "--cached", "-", stdin=shown.encode())
    assert git("write-tree").decode().strip() == after
