"""`hf_hub_download`, `snapshot_download` and `hf download`: bytes, caches, revisions, errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cairn import Published
from huggingface_hub import (
    constants,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import _CACHED_NO_EXIST
from pointers import blob_oid, sha256
from samples import Samples


def contents(folder: str | Path) -> dict[str, bytes]:
    """Path to bytes of every file of a snapshot or local folder, without the client's own notes."""
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(root).parts
    }


def expected(published: Published) -> dict[str, bytes]:
    return published.files()


def without_attributes(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != ".gitattributes"}


def storage(cache: Path, published: Published) -> Path:
    return cache / f"{published.kind}s--{published.repo.replace('/', '--')}"


def hf(*arguments: str, home: Path) -> subprocess.CompletedProcess:
    """Runs the `hf` command with a cache of its own, and no way out but loopback."""
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {
        "HF_HOME": str(home),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return subprocess.run(
        [Path(sys.executable).parent / "hf", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_a_file_comes_with_its_own_bytes(tiny_bert: Published, name: str) -> None:
    path = hf_hub_download(tiny_bert.repo, name)
    assert Path(path).read_bytes() == tiny_bert.files()[name]


def test_the_local_alias_leads_to_the_same_file(tiny_bert: Published) -> None:
    path = hf_hub_download(tiny_bert.alias, "config.json")
    assert Path(path).read_bytes() == tiny_bert.files()["config.json"]
    assert Path(path).parent.name == tiny_bert.commit


def test_blobs_are_named_by_git_oid_and_by_sha256_where_lfs(
    cache: Path, tiny_bert: Published
) -> None:
    files = tiny_bert.files()
    regular = Path(hf_hub_download(tiny_bert.repo, "config.json"))
    large = Path(hf_hub_download(tiny_bert.repo, "model.safetensors"))
    blobs = storage(cache, tiny_bert) / "blobs"
    assert regular.resolve() == (blobs / blob_oid(files["config.json"])).resolve()
    assert large.resolve() == (blobs / sha256(files["model.safetensors"])).resolve()
    assert (storage(cache, tiny_bert) / "refs" / "main").read_text() == tiny_bert.commit


def test_a_second_call_takes_the_file_from_the_cache(tiny_bert: Published) -> None:
    first = hf_hub_download(tiny_bert.repo, "model.safetensors")
    before = os.stat(first)
    second = hf_hub_download(tiny_bert.repo, "model.safetensors")
    after = os.stat(second)
    assert second == first
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert hf_hub_download(tiny_bert.repo, "model.safetensors", local_files_only=True) == first


def test_a_commit_in_the_cache_needs_no_server(
    tiny_bert: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hf_hub_download(tiny_bert.repo, "config.json", revision=tiny_bert.commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hf_hub_download(tiny_bert.repo, "config.json", revision=tiny_bert.commit) == first
    with pytest.raises(LocalEntryNotFoundError) as error:
        hf_hub_download(tiny_bert.repo, "README.md", revision=tiny_bert.commit)
    assert type(error.value) is LocalEntryNotFoundError


def test_a_missing_file_is_remembered_for_its_commit(cache: Path, tiny_bert: Published) -> None:
    with pytest.raises(RemoteEntryNotFoundError) as error:
        hf_hub_download(tiny_bert.repo, "adapter_config.json")
    assert type(error.value) is RemoteEntryNotFoundError
    marker = storage(cache, tiny_bert) / ".no_exist" / tiny_bert.commit / "adapter_config.json"
    assert marker.is_file()
    assert try_to_load_from_cache(tiny_bert.repo, "adapter_config.json") is _CACHED_NO_EXIST


def test_a_local_folder_gets_the_file_and_its_etag(tmp_path: Path, tiny_bert: Published) -> None:
    files = tiny_bert.files()
    for name, etag in {
        "config.json": blob_oid(files["config.json"]),
        "model.safetensors": sha256(files["model.safetensors"]),
    }.items():
        path = Path(hf_hub_download(tiny_bert.repo, name, local_dir=tmp_path / "here"))
        assert path == tmp_path / "here" / name
        assert path.read_bytes() == files[name]
        notes = tmp_path / "here" / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        assert notes.read_text().splitlines()[:2] == [tiny_bert.commit, etag]


def test_a_local_folder_that_has_the_file_keeps_it(tmp_path: Path, tiny_bert: Published) -> None:
    path = Path(hf_hub_download(tiny_bert.repo, "model.safetensors", local_dir=tmp_path))
    before = path.stat()
    # Without the note, the client hashes the file and compares that with the server's etag.
    (tmp_path / ".cache/huggingface/download/model.safetensors.metadata").unlink()
    hf_hub_download(tiny_bert.repo, "model.safetensors", local_dir=tmp_path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("kind", ["csv", "parquet", "space"])
def test_datasets_and_spaces_come_whole(samples: Samples, kind: str) -> None:
    published = getattr(samples, kind)
    folder = snapshot_download(published.repo, repo_type=published.kind)
    assert without_attributes(contents(folder)) == expected(published)


def test_a_snapshot_has_every_file_and_the_default_attributes(tiny_bert: Published) -> None:
    folder = snapshot_download(tiny_bert.repo)
    found = contents(folder)
    assert Path(folder).name == tiny_bert.commit
    assert without_attributes(found) == expected(tiny_bert)
    assert b"*.safetensors filter=lfs diff=lfs merge=lfs -text" in found[".gitattributes"]


def test_odd_names_come_through_unharmed(odd: Published) -> None:
    assert without_attributes(contents(snapshot_download(odd.repo))) == expected(odd)


def test_more_files_than_a_page_come_whole(samples: Samples, tmp_path: Path) -> None:
    folder = snapshot_download(
        samples.wide.repo, repo_type="dataset", local_dir=tmp_path / "wide", max_workers=16
    )
    assert without_attributes(contents(folder)) == expected(samples.wide)


def test_patterns_choose_files(tiny_bert: Published) -> None:
    folder = snapshot_download(
        tiny_bert.repo, allow_patterns=["*.json", "*.md"], ignore_patterns="tokenizer*"
    )
    assert set(contents(folder)) == {"README.md", "config.json"}


@pytest.mark.parametrize("revision", ["main", "dev", "feature/one", "v1.0"])
def test_a_branch_or_tag_leads_to_its_commit(
    cache: Path, branches: dict[str, Published], revision: str
) -> None:
    published = branches[revision]
    folder = snapshot_download(published.repo, revision=revision)
    assert Path(folder).name == published.commit
    assert without_attributes(contents(folder)) == expected(published)
    assert (storage(cache, published) / "refs" / revision).read_text() == published.commit


def test_a_commit_is_found_by_its_id(branches: dict[str, Published]) -> None:
    first = branches["first"]
    folder = snapshot_download(first.repo, revision=first.commit)
    assert without_attributes(contents(folder)) == expected(first)
    path = hf_hub_download(first.repo, "value.txt", revision=first.commit)
    assert Path(path).read_bytes() == b"first"


def test_what_is_missing_raises_the_clients_own_error(branches: dict[str, Published]) -> None:
    repo = branches["main"].repo
    namespace = repo.split("/")[0]
    cases = [
        (RepositoryNotFoundError, lambda: hf_hub_download(f"{namespace}/nothing", "config.json")),
        (RepositoryNotFoundError, lambda: hf_hub_download("nobody/nothing", "config.json")),
        (RepositoryNotFoundError, lambda: hf_hub_download(repo, "value.txt", repo_type="dataset")),
        (RevisionNotFoundError, lambda: hf_hub_download(repo, "value.txt", revision="absent")),
        (RevisionNotFoundError, lambda: hf_hub_download(repo, "value.txt", revision="a/b")),
        (RevisionNotFoundError, lambda: hf_hub_download(repo, "value.txt", revision="0" * 40)),
        (RemoteEntryNotFoundError, lambda: hf_hub_download(repo, "added/later.txt", revision="dev")),
        (RemoteEntryNotFoundError, lambda: hf_hub_download(repo, "added")),
        (RepositoryNotFoundError, lambda: snapshot_download(f"{namespace}/nothing")),
        (RevisionNotFoundError, lambda: snapshot_download(repo, revision="absent")),
    ]
    for number, (kind, call) in enumerate(cases):
        with pytest.raises(kind) as error:
            call()
        assert type(error.value) is kind, f"case {number}"


def test_hf_download_prints_where_the_snapshot_is(tmp_path: Path, tiny_bert: Published) -> None:
    done = hf("download", tiny_bert.repo, "--format", "quiet", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    folder = done.stdout.split()[-1]
    assert without_attributes(contents(folder)) == expected(tiny_bert)


def test_hf_download_takes_one_file_of_a_branch(
    tmp_path: Path, branches: dict[str, Published]
) -> None:
    done = hf(
        *("download", branches["dev"].repo, "value.txt", "--revision", "feature/one"),
        *("--local-dir", str(tmp_path / "here")),
        home=tmp_path / "home",
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "here") == {"value.txt": b"slashed"}


def test_hf_cache_verify_finds_a_snapshot_whole_and_a_changed_file(
    tmp_path: Path, tiny_bert: Published
) -> None:
    home = tmp_path / "home"
    assert hf("download", tiny_bert.repo, home=home).returncode == 0
    good = hf("cache", "verify", tiny_bert.repo, home=home)
    assert good.returncode == 0, good.stdout + good.stderr
    (blob,) = home.glob(f"hub/*/blobs/{blob_oid(tiny_bert.files()['config.json'])}")
    blob.write_bytes(b"{}")
    bad = hf("cache", "verify", tiny_bert.repo, home=home)
    assert bad.returncode != 0
    assert "config.json" in bad.stdout + bad.stderr


def test_hf_download_of_nothing_fails_and_says_so(tmp_path: Path, tiny_bert: Published) -> None:
    namespace = tiny_bert.repo.split("/")[0]
    done = hf("download", f"{namespace}/nothing", home=tmp_path)
    assert done.returncode == 1
    assert "not found" in (done.stdout + done.stderr).lower()
