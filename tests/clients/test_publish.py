"""Files go up through huggingface_hub and the `hf` command, and come back byte for byte."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from http_client import request
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from pointers import blob_oid, sha256
from publisher import Account, Publisher, contents, entry, titles
from samples import write

pytestmark = pytest.mark.usefixtures("upload_path")

KIB, MIB = 1 << 10, 1 << 20
# Around the smallest and the largest chunk of Xet, what the node keeps inline, what it hashes in one piece, and
# what git may still hold. Pieces and parts of larger files: tests/faults/test_publish_size.py.
BOUNDARIES = (8 * KIB, 64 * KIB, 128 * KIB, MIB, 10 * MIB)
SIZES = [0, 1, *(at + by for at in BOUNDARIES for by in (-1, 0, 1))]

MANY_FILES = 1_000
LONG_TEXTS = 4
WRITERS = 8


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that nothing compresses; the first is a NUL, so that they count as binary at any size."""
    return (b"\0" + random.Random(f"{size} {seed}").randbytes(size))[:size]


def prose(size: int, seed: int = 0) -> bytes:
    """Text of exactly this size."""
    line = f"{seed}: the quick brown fox jumps over the lazy dog\n".encode()
    return (line * (size // len(line) + 1))[:size]


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


@pytest.fixture
def repo(publisher: Publisher, ada: Account) -> str:
    return publisher.repo(ada)


@pytest.mark.parametrize("name", ["notes.txt", "weights.bin"])
@pytest.mark.parametrize("source", ["bytes", "path", "file object"])
def test_upload_file(ada: Account, repo: str, tmp_path: Path, name: str, source: str) -> None:
    content = prose(5_000) if name == "notes.txt" else noise(5_000)
    write(tmp_path / "here", {name: content})
    given = {
        "bytes": content,
        "path": tmp_path / "here" / name,
        "file object": io.BytesIO(content),
    }
    commit = ada.api.upload_file(
        path_or_fileobj=given[source], path_in_repo=f"a/{name}", repo_id=repo, commit_message="Add it"
    )
    assert contents(ada, repo) == {f"a/{name}": content}
    assert commit.oid == ada.api.repo_info(repo).sha
    assert titles(ada, repo)[0] == "Add it"
    found = entry(ada, repo, f"a/{name}")
    assert found.size == len(content)
    if name == "weights.bin":
        assert found.lfs.sha256 == sha256(content)
    else:
        assert (found.lfs, found.blob_id) == (None, blob_oid(content))


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_the_other_kinds_take_files_too(publisher: Publisher, ada: Account, kind: str) -> None:
    options = {"space_sdk": "static"} if kind == "space" else {}
    repo = publisher.repo(ada, kind, **options)
    files = {"index.html": b"<p>here</p>\n", "data/rows.parquet": noise(3_000)}
    operations = [add(path, content) for path, content in files.items()]
    commit = ada.api.create_commit(repo, operations, repo_type=kind, commit_message="Add both")
    assert commit.commit_url == f"{ada.api.endpoint}/{kind}s/{repo}/commit/{commit.oid}"
    assert contents(ada, repo, kind) == files
    assert entry(ada, repo, "data/rows.parquet", kind).lfs.sha256 == sha256(files["data/rows.parquet"])


@pytest.mark.parametrize("name", ["noise.bin", "zeros.bin", "prose.txt"])
def test_every_size_comes_back(publisher: Publisher, ada: Account, repo: str, name: str) -> None:
    """Binary and text of each size, one commit for each kind; zeros are cut into the largest chunks only."""
    makers = {"noise.bin": noise, "zeros.bin": lambda size, _: bytes(size), "prose.txt": prose}
    make = makers[name]
    files = {f"{size}/{name}": make(size, size) for size in SIZES}
    operations = [add(path, content) for path, content in files.items()]
    ada.api.create_commit(repo, operations, commit_message="Add every size")
    assert contents(ada, repo) == files
    for path, content in files.items():
        found = entry(ada, repo, path)
        # Empty files are never LFS, binary ones by their pattern always, text by its size.
        is_lfs = len(content) > 10 * MIB if name == "prose.txt" else len(content) > 0
        assert (found.size, found.lfs is not None) == (len(content), is_lfs), path
        # By whichever way it came, plain HTTP has the same bytes.
        assert request(publisher.url, f"/{repo}/resolve/main/{path}").body == content, path


def test_long_texts_stay_in_git(ada: Account, repo: str) -> None:
    files = {f"long/{at}.txt": prose(9 * MIB, at) for at in range(LONG_TEXTS)}
    operations = [add(path, content) for path, content in files.items()]
    ada.api.create_commit(repo, operations, commit_message="Add long texts")
    assert contents(ada, repo) == files
    assert all(entry(ada, repo, path).lfs is None for path in files)


def test_a_thousand_files_in_one_commit(ada: Account, repo: str) -> None:
    files = {f"{at % 7}/{at % 11}/{at:04}.txt": f"{at}\n".encode() for at in range(MANY_FILES)}
    operations = [add(path, content) for path, content in files.items()]
    before = titles(ada, repo)
    ada.api.create_commit(repo, operations, commit_message="Add a thousand")
    assert titles(ada, repo) == ["Add a thousand", *before]
    tree = ada.api.list_repo_tree(repo, recursive=True)
    oids = {item.path: item.blob_id for item in tree if hasattr(item, "blob_id")}
    oids.pop(".gitattributes")
    assert oids == {path: blob_oid(content) for path, content in files.items()}


def test_one_commit_adds_copies_and_deletes(publisher: Publisher, ada: Account, repo: str) -> None:
    old = {
        "keep.txt": b"kept\n",
        "change.txt": b"before\n",
        "gone.txt": b"gone\n",
        "folder/a.txt": b"a\n",
        "folder/below/b.bin": noise(900, 1),
        "model.safetensors": noise(2_000, 2),
    }
    ada.api.create_commit(repo, [add(*file) for file in old.items()], commit_message="Begin")
    operations = [
        add("change.txt", b"after\n"),
        add("new/file.txt", b"new\n"),
        CommitOperationCopy(src_path_in_repo="model.safetensors", path_in_repo="copy.safetensors"),
        CommitOperationCopy(src_path_in_repo="keep.txt", path_in_repo="copies/keep.txt"),
        CommitOperationDelete(path_in_repo="gone.txt"),
        CommitOperationDelete(path_in_repo="folder/"),
    ]
    commit = ada.api.create_commit(
        repo, operations, commit_message="Do it all", commit_description="In one go.\n\nReally."
    )
    expected = {
        "keep.txt": b"kept\n",
        "change.txt": b"after\n",
        "new/file.txt": b"new\n",
        "model.safetensors": old["model.safetensors"],
        "copy.safetensors": old["model.safetensors"],
        "copies/keep.txt": b"kept\n",
    }
    assert contents(ada, repo) == expected
    latest, first, initial = ada.api.list_repo_commits(repo)
    assert (latest.commit_id, latest.title) == (commit.oid, "Do it all")
    assert latest.message == "In one go.\n\nReally."
    assert (first.title, initial.title) == ("Begin", "initial commit")
    assert latest.authors == [ada.name]
    # What was is still there.
    assert contents(ada, repo, revision=first.commit_id) == old


def test_what_a_commit_deletes_it_may_add_anew(ada: Account, repo: str) -> None:
    old = {"folder/a.txt": b"a\n", "folder/b.txt": b"b\n", "file": b"file\n", "tree/c.txt": b"c\n"}
    ada.api.create_commit(repo, [add(*file) for file in old.items()], commit_message="Begin")
    new = {"folder/b.txt": b"b\n", "folder/new.txt": b"new\n", "file/now/folder.txt": b"x\n", "tree": b"y\n"}
    deletions = [CommitOperationDelete(path) for path in ("folder/", "file", "tree/")]
    operations = [*deletions, *(add(*file) for file in new.items())]
    ada.api.create_commit(repo, operations, commit_message="Anew")
    assert contents(ada, repo) == new


def test_writers_at_once_lose_nothing(ada: Account, repo: str) -> None:
    def upload(at: int) -> None:
        ada.api.upload_file(path_or_fileobj=prose(100, at), path_in_repo=f"{at}.txt", repo_id=repo)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(upload, range(2 * WRITERS)))
    assert contents(ada, repo) == {f"{at}.txt": prose(100, at) for at in range(2 * WRITERS)}
    assert len(titles(ada, repo)) == 2 * WRITERS + 1


def test_files_are_copied_between_repositories(
    publisher: Publisher, ada: Account, repo: str, upload_path: str
) -> None:
    files = {"one.txt": b"one\n", "two/three.txt": prose(70_000)}
    if upload_path == "xet":
        # The client copies a large file of another repository by its xet hash alone.
        files["four.bin"] = noise(70_000)
    ada.api.create_commit(repo, [add(*file) for file in files.items()], commit_message="Begin")
    other = publisher.repo(ada, "dataset")
    operations = [
        CommitOperationCopy(path, f"copied/{path}", src_repo_id=repo, src_repo_type="model")
        for path in files
    ]
    ada.api.create_commit(other, operations, repo_type="dataset", commit_message="Copy")
    expected = {f"copied/{path}": content for path, content in files.items()}
    assert contents(ada, other, "dataset") == expected


def test_deleting_methods(ada: Account, repo: str) -> None:
    files = {name: b"x\n" for name in ("a.txt", "b.log", "c.log", "d/e.txt", "d/f/g.txt", "h.txt")}
    ada.api.create_commit(repo, [add(*file) for file in files.items()], commit_message="Begin")
    ada.api.delete_file("a.txt", repo)
    ada.api.delete_files(repo, ["*.log"])
    ada.api.delete_folder("d", repo)
    assert set(contents(ada, repo)) == {"h.txt"}


def test_what_did_not_change_makes_no_commit(ada: Account, repo: str) -> None:
    files = {"a.txt": b"same\n", "b.bin": noise(4_000), "empty.txt": b""}
    first = ada.api.create_commit(repo, [add(*file) for file in files.items()], commit_message="One")
    again = ada.api.create_commit(repo, [add(*file) for file in files.items()], commit_message="Two")
    assert again.oid == first.oid
    # What changed is committed by itself.
    operations = [add("a.txt", b"same\n"), add("b.bin", noise(4_000, 1))]
    third = ada.api.create_commit(repo, operations, commit_message="Three")
    assert third.oid != first.oid
    assert titles(ada, repo) == ["Three", "One", "initial commit"]
    assert contents(ada, repo) == files | {"b.bin": noise(4_000, 1)}


def test_a_commit_goes_to_a_branch(ada: Account, repo: str) -> None:
    ada.api.create_branch(repo, branch="dev/one")
    ada.api.upload_file(
        path_or_fileobj=noise(3_000), path_in_repo="x.bin", repo_id=repo, revision="dev/one"
    )
    assert contents(ada, repo) == {}
    assert contents(ada, repo, revision="dev/one") == {"x.bin": noise(3_000)}


def test_upload_folder_chooses_and_deletes(ada: Account, repo: str, tmp_path: Path) -> None:
    files = {
        "README.md": b"---\nlicense: mit\n---\n\n# Here\n",
        "model.safetensors": noise(100_000),
        "logs/1.log": b"one\n",
        "logs/keep.txt": b"kept\n",
        "deep/er/x.json": b"{}\n",
        "draft.tmp": b"draft\n",
        ".git/config": b"never sent\n",
    }
    folder = write(tmp_path / "folder", files)
    ada.api.upload_folder(folder_path=folder, repo_id=repo, ignore_patterns=["*.tmp"])
    sent = {path: content for path, content in files.items() if path not in ("draft.tmp", ".git/config")}
    assert contents(ada, repo) == sent
    ada.api.upload_folder(
        folder_path=write(tmp_path / "second", {"2.log": b"two\n", "3.txt": b"three\n", "4.md": b"no\n"}),
        path_in_repo="logs",
        repo_id=repo,
        allow_patterns=["*.log", "*.txt"],
        delete_patterns=["*.log"],
        commit_message="Rotate",
    )
    sent.pop("logs/1.log")
    assert contents(ada, repo) == sent | {"logs/2.log": b"two\n", "logs/3.txt": b"three\n"}
    assert titles(ada, repo)[0] == "Rotate"


def test_what_gitignore_names_is_left_out(ada: Account, repo: str, tmp_path: Path) -> None:
    ignore = b"*.log\n/build/\n!keep.log\n"
    files = {
        ".gitignore": ignore,
        "a.txt": b"a\n",
        "b.log": b"b\n",
        "keep.log": b"kept\n",
        "build/c.bin": noise(2_000),
        "src/build/d.txt": b"d\n",
    }
    ada.api.upload_folder(folder_path=write(tmp_path / "folder", files), repo_id=repo)
    kept = {path: files[path] for path in (".gitignore", "a.txt", "keep.log", "src/build/d.txt")}
    assert contents(ada, repo) == kept
    # Now it is the one that stands in the repository.
    operations = [add("later.log", b"later\n"), add("later.txt", b"later\n")]
    ada.api.create_commit(repo, operations, commit_message="Later")
    assert contents(ada, repo) == kept | {"later.txt": b"later\n"}


def test_gitattributes_decide_how_a_file_is_kept(ada: Account, repo: str) -> None:
    text, binary = prose(3_000), noise(3_000)
    ada.api.upload_file(
        path_or_fileobj=b"*.txt filter=lfs diff=lfs merge=lfs -text\n*.bin -filter\n",
        path_in_repo=".gitattributes",
        repo_id=repo,
    )
    ada.api.upload_file(path_or_fileobj=text, path_in_repo="a.txt", repo_id=repo)
    ada.api.upload_file(path_or_fileobj=prose(3_000, 1), path_in_repo="b.md", repo_id=repo)
    ada.api.upload_file(path_or_fileobj=binary, path_in_repo="no-pattern.xyz", repo_id=repo)
    assert entry(ada, repo, "a.txt").lfs.sha256 == sha256(text)
    assert entry(ada, repo, "b.md").lfs is None
    # Binary by its first bytes, whatever it is called.
    assert entry(ada, repo, "no-pattern.xyz").lfs.sha256 == sha256(binary)
    assert contents(ada, repo) == {"a.txt": text, "b.md": prose(3_000, 1), "no-pattern.xyz": binary}


def test_hf_upload_sends_a_folder_and_a_file(
    publisher: Publisher, ada: Account, tmp_path: Path
) -> None:
    home, repo = tmp_path / "home", publisher.fresh_name(ada)
    files = {"README.md": b"# By hf\n", "weights.bin": noise(90_000), "sub/x.txt": b"x\n"}
    folder = write(tmp_path / "folder", files)
    done = publisher.hf("upload", repo, folder, ".", home=home, account=ada)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(ada, repo) == files
    one = publisher.hf(
        *("upload", repo, folder / "sub/x.txt", "named.txt", "--revision", "side"),
        *("--commit-message", "Add one"),
        home=home,
        account=ada,
    )
    assert one.returncode == 0, one.stdout + one.stderr
    assert titles(ada, repo, "side")[0] == "Add one"
    assert contents(ada, repo, revision="side") == files | {"named.txt": b"x\n"}
    assert "named.txt" not in contents(ada, repo)


def test_hf_upload_includes_excludes_and_deletes(
    publisher: Publisher, ada: Account, repo: str, tmp_path: Path
) -> None:
    ada.api.create_commit(repo, [add("old.txt", b"old\n"), add("old.md", b"old\n")], commit_message="Old")
    folder = write(tmp_path / "folder", {"a.txt": b"a\n", "b.txt": b"b\n", "c.json": b"{}\n"})
    done = publisher.hf(
        *("upload", repo, folder, ".", "--include", "*.txt", "--exclude", "b.*", "--delete", "*.txt"),
        home=tmp_path / "home",
        account=ada,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(ada, repo) == {"a.txt": b"a\n", "old.md": b"old\n"}
