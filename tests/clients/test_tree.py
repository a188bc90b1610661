"""Trees and paths: what stands where, under which git id, changed by which commit."""

import pytest
from cairn import Published
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from pointers import blob_oid, pointer, sha256
from samples import WIDE_FILES_PER_FOLDER, WIDE_FLAT_FILES, WIDE_FOLDERS, Samples


def folders_of(files: dict[str, bytes]) -> set[str]:
    return {
        "/".join(parts[:depth])
        for parts in (name.split("/") for name in files)
        for depth in range(1, len(parts))
    }


def test_a_recursive_tree_has_every_file_and_folder(api: HfApi, odd: Published) -> None:
    files = odd.files()
    tree = list(api.list_repo_tree(odd.repo, recursive=True))
    found = {e.path: e for e in tree if isinstance(e, RepoFile)}
    assert len(tree) == len({e.path for e in tree})
    assert set(found) == {*files, ".gitattributes"}
    assert {e.path for e in tree if isinstance(e, RepoFolder)} == folders_of(files)
    for name, content in files.items():
        entry = found[name]
        assert entry.size == len(content), name
        assert entry.xet_hash is None
        assert (entry.last_commit, entry.security) == (None, None)
        if entry.lfs is None:
            assert entry.blob_id == blob_oid(content), name
        else:
            assert entry.blob_id == blob_oid(pointer(content)), name
            assert entry.lfs.sha256 == sha256(content), name
            assert entry.lfs.size == len(content), name
            assert entry.lfs.pointer_size == len(pointer(content)), name


def test_lfs_is_what_the_hub_would_make_lfs(api: HfApi, samples: Samples) -> None:
    lfs = {
        e.path
        for e in api.list_repo_tree(samples.odd.repo, recursive=True)
        if isinstance(e, RepoFile) and e.lfs is not None
    }
    # By pattern, by pattern though it is text, and by its bytes alone.
    assert lfs == {"x.bin", "data.parquet", "binary-without-pattern.xyz"}


def test_a_flat_tree_stops_at_the_first_folders(api: HfApi, odd: Published) -> None:
    paths = {e.path: e for e in api.list_repo_tree(odd.repo)}
    assert set(paths) == {name.split("/")[0] for name in odd.files()} | {".gitattributes"}
    assert isinstance(paths["deep"], RepoFolder)
    assert len(paths["deep"].tree_id) == 40


@pytest.mark.parametrize("folder", ["deep", "deep/er", "größe/日本語", ".hidden", "tree/main"])
def test_a_subfolder_is_listed_with_whole_paths(api: HfApi, odd: Published, folder: str) -> None:
    flat = {e.path for e in api.list_repo_tree(odd.repo, path_in_repo=folder)}
    below = {name for name in odd.files() if name.startswith(folder + "/")}
    depth = folder.count("/") + 2
    assert flat == {"/".join(name.split("/")[:depth]) for name in below}
    deep = api.list_repo_tree(odd.repo, path_in_repo=folder, recursive=True)
    assert {e.path for e in deep if isinstance(e, RepoFile)} == below


def test_a_tree_at_each_revision(api: HfApi, branches: dict[str, Published]) -> None:
    for revision in ("main", "dev", "feature/one", "v1.0", branches["first"].commit):
        published = next(
            p for name, p in branches.items() if revision in (name, p.commit)
        )
        names = api.list_repo_files(published.repo, revision=revision)
        assert sorted(names) == sorted([*published.files(), ".gitattributes"])


def test_expand_names_the_last_commit_of_each_entry(api: HfApi, samples: Samples) -> None:
    history = samples.history
    entries = {
        e.path: e for e in api.list_repo_tree(history[0].repo, recursive=True, expand=True)
    }
    last = len(history) - 1
    expected = {
        "counter.txt": last,
        "kept": last // 10 * 10,
        **{f"kept/{ten}.txt": ten * 10 for ten in range(last // 10 + 1)},
        ".gitattributes": 0,
    }
    assert {path: entry.last_commit.oid for path, entry in entries.items()} == {
        path: history[at].commit for path, at in expected.items()
    }
    assert entries["counter.txt"].last_commit.title == f"Count to {last}"
    assert entries["counter.txt"].last_commit.date.tzinfo is not None


def test_a_tree_of_more_than_a_page(api: HfApi, samples: Samples) -> None:
    files = sorted([*samples.wide.files(), ".gitattributes"])
    assert len(files) == WIDE_FLAT_FILES + WIDE_FOLDERS * WIDE_FILES_PER_FOLDER + 1
    assert sorted(api.list_repo_files(samples.wide.repo, repo_type="dataset")) == files
    flat = list(api.list_repo_tree(samples.wide.repo, "flat", repo_type="dataset"))
    assert [e.path for e in flat] == [f"flat/{at:05}.txt" for at in range(WIDE_FLAT_FILES)]


def test_an_expanded_tree_of_more_than_a_page(api: HfApi, samples: Samples) -> None:
    wide = samples.wide
    entries = list(api.list_repo_tree(wide.repo, "flat", expand=True, repo_type="dataset"))
    assert len({e.path for e in entries}) == len(entries) == WIDE_FLAT_FILES
    assert {e.last_commit.oid for e in entries} == {wide.commit}


def test_paths_are_looked_up_and_unknown_ones_left_out(api: HfApi, odd: Published) -> None:
    wanted = ["deep", "deep.txt", "größe/日本語/Ελληνικά.txt", "x.bin", "c++.txt", "nowhere"]
    found = {e.path: e for e in api.get_paths_info(odd.repo, wanted)}
    assert set(found) == set(wanted) - {"nowhere"}
    assert isinstance(found["deep"], RepoFolder)
    assert found["x.bin"].lfs.sha256 == sha256(odd.files()["x.bin"])
    assert found["deep.txt"].last_commit is None
    assert api.get_paths_info(odd.repo, "nowhere") == []


def test_expanded_paths_name_their_last_commit(api: HfApi, samples: Samples) -> None:
    history = samples.history
    found = api.get_paths_info(history[0].repo, ["kept/2.txt", "kept"], expand=True)
    assert {e.path: e.last_commit.oid for e in found} == {
        "kept/2.txt": history[20].commit,
        "kept": history[(len(history) - 1) // 10 * 10].commit,
    }


def test_a_thousand_paths_at_once(api: HfApi, samples: Samples) -> None:
    wanted = [f"flat/{at:05}.txt" for at in range(WIDE_FLAT_FILES)]
    found = api.get_paths_info(samples.wide.repo, wanted, repo_type="dataset")
    assert sorted(e.path for e in found) == wanted


def test_what_is_missing_in_a_tree(api: HfApi, branches: dict[str, Published]) -> None:
    repo = branches["main"].repo
    for kind, call in (
        (RemoteEntryNotFoundError, lambda: list(api.list_repo_tree(repo, "nowhere"))),
        # A file is no folder.
        (RemoteEntryNotFoundError, lambda: list(api.list_repo_tree(repo, "README.md"))),
        (RemoteEntryNotFoundError, lambda: list(api.list_repo_tree(repo, "added", revision="dev"))),
        (RevisionNotFoundError, lambda: list(api.list_repo_tree(repo, revision="absent"))),
        (RevisionNotFoundError, lambda: api.get_paths_info(repo, "README.md", revision="absent")),
        (RepositoryNotFoundError, lambda: list(api.list_repo_tree("nobody/nothing"))),
        (RepositoryNotFoundError, lambda: api.list_repo_files("nobody/nothing")),
        (RepositoryNotFoundError, lambda: api.get_paths_info("nobody/nothing", "README.md")),
    ):
        with pytest.raises(kind) as error:
            call()
        assert type(error.value) is kind
