"""`HfFileSystem`: a repository as a file system."""

from urllib.parse import quote

import pytest
from cairn import Published
from huggingface_hub import HfFileSystem
from samples import WIDE_FILES_PER_FOLDER, WIDE_FLAT_FILES, WIDE_FOLDERS, Samples

SAFE_NAMES = {"hash#tag.txt", "c++.txt", "with space.txt", "größe/日本語/Ελληνικά.txt"}


@pytest.fixture
def fs() -> HfFileSystem:
    return HfFileSystem(skip_instance_cache=True)


def test_ls_shows_files_and_folders(fs: HfFileSystem, odd: Published) -> None:
    names = fs.ls(odd.repo, detail=False)
    assert {n.removeprefix(odd.repo + "/") for n in names} == {
        name.split("/")[0] for name in odd.files()
    } | {".gitattributes"}
    details = {e["name"]: e for e in fs.ls(f"{odd.repo}/deep")}
    assert details[f"{odd.repo}/deep/er.txt"]["size"] == len(odd.files()["deep/er.txt"])
    assert details[f"{odd.repo}/deep/er"]["type"] == "directory"


def test_ls_of_a_file_is_that_file(fs: HfFileSystem, odd: Published) -> None:
    assert fs.ls(f"{odd.repo}/deep.txt", detail=False) == [f"{odd.repo}/deep.txt"]


def test_find_and_walk_reach_everything(fs: HfFileSystem, samples: Samples) -> None:
    root = f"datasets/{samples.wide.repo}"
    found = fs.find(root)
    assert len(found) == WIDE_FLAT_FILES + WIDE_FOLDERS * WIDE_FILES_PER_FOLDER + 1
    assert {f.removeprefix(root + "/") for f in found} == {*samples.wide.files(), ".gitattributes"}
    walked = {
        f"{folder}/{name}" for folder, _, names in fs.walk(f"{root}/nested") for name in names
    }
    assert walked == {f for f in found if f.startswith(f"{root}/nested/")}


def test_glob_chooses_by_pattern(fs: HfFileSystem, samples: Samples) -> None:
    root = f"datasets/{samples.parquet.repo}"
    relative = lambda paths: {p.removeprefix(root + "/") for p in paths}  # noqa: E731
    files = samples.parquet.files()
    assert relative(fs.glob(f"{root}/**/*.parquet")) == {f for f in files if f.endswith(".parquet")}
    assert relative(fs.glob(f"{root}/default/train-*")) == {
        f for f in files if f.startswith("default/train-")
    }
    assert fs.glob(f"{root}/*.csv") == []


def test_info_and_existence(fs: HfFileSystem, tiny_bert: Published) -> None:
    files = tiny_bert.files()
    info = fs.info(f"{tiny_bert.repo}/model.safetensors")
    assert (info["type"], info["size"]) == ("file", len(files["model.safetensors"]))
    assert info["lfs"].size == info["size"]
    assert fs.info(tiny_bert.repo)["type"] == "directory"
    assert fs.isdir(tiny_bert.repo)
    assert fs.isfile(f"{tiny_bert.repo}/config.json")
    assert not fs.exists(f"{tiny_bert.repo}/nothing")
    assert not fs.exists("nobody/nothing/config.json")


@pytest.mark.parametrize("name", sorted(SAFE_NAMES))
def test_odd_names_are_read(fs: HfFileSystem, odd: Published, name: str) -> None:
    assert fs.cat_file(f"{odd.repo}/{name}") == odd.files()[name]
    assert fs.info(f"{odd.repo}/{name}")["size"] == len(odd.files()[name])


def test_ranges_of_a_file(fs: HfFileSystem, samples: Samples) -> None:
    path = f"{samples.minilm.repo}/model.safetensors"
    content = samples.minilm.files()["model.safetensors"]
    size = len(content)
    for start, end in [(0, 8), (8, 1000), (size // 2, size // 2 + 70_000), (size - 5, size)]:
        assert fs.cat_file(path, start=start, end=end) == content[start:end]
    assert fs.cat_file(path, start=size - 100) == content[-100:]
    assert fs.cat_ranges([path] * 2, [10, 20_000_000], [20, 20_000_010]) == [
        content[10:20],
        content[20_000_000:20_000_010],
    ]


def test_an_open_file_seeks_and_reads(fs: HfFileSystem, samples: Samples) -> None:
    content = samples.minilm.files()["model.safetensors"]
    with fs.open(f"{samples.minilm.repo}/model.safetensors", block_size=64 * 1024) as file:
        assert file.read(16) == content[:16]
        assert file.seek(50_000_000) == 50_000_000
        assert file.read(300_000) == content[50_000_000:50_300_000]
        assert file.tell() == 50_300_000
        file.seek(-7, 2)
        assert file.read() == content[-7:]


def test_a_streamed_file_reads_through(fs: HfFileSystem, tiny_bert: Published) -> None:
    with fs.open(f"{tiny_bert.repo}/model.safetensors", block_size=0) as file:
        assert file.read() == tiny_bert.files()["model.safetensors"]


def test_text_is_read_by_line(fs: HfFileSystem, samples: Samples) -> None:
    lines = samples.csv.files()["train.csv"].decode().splitlines(keepends=True)
    with fs.open(f"datasets/{samples.csv.repo}/train.csv", "r", encoding="utf-8") as file:
        assert list(file) == lines


@pytest.mark.parametrize("revision", ["main", "dev", "feature/one", "v1.0"])
def test_a_revision_in_the_path(
    fs: HfFileSystem, branches: dict[str, Published], revision: str
) -> None:
    published = branches[revision]
    root = f"{published.repo}@{quote(revision, safe='')}"
    assert fs.cat_file(f"{root}/value.txt") == published.files()["value.txt"]
    assert {n.split("/")[-1] for n in fs.find(root)} == {
        name.split("/")[-1] for name in published.files()
    } | {".gitattributes"}


def test_the_date_of_the_last_change(fs: HfFileSystem, samples: Samples) -> None:
    repo = samples.history[0].repo
    old, new = fs.modified(f"{repo}/kept/0.txt"), fs.modified(f"{repo}/counter.txt")
    assert old <= new
    assert fs.info(f"{repo}/kept/0.txt", expand_info=True)["last_commit"].oid == (
        samples.history[0].commit
    )


def test_a_file_is_copied_out(fs: HfFileSystem, tmp_path, tiny_bert: Published) -> None:
    fs.get_file(f"{tiny_bert.repo}/model.safetensors", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == tiny_bert.files()["model.safetensors"]


def test_what_is_missing_is_file_not_found(
    fs: HfFileSystem, branches: dict[str, Published]
) -> None:
    repo = branches["main"].repo
    for path in (
        *(f"{repo}/nothing.txt", f"{repo}/nothing/below.txt", f"{repo}@absent/value.txt"),
        *("nobody/nothing/value.txt", f"{repo}@dev/added/later.txt"),
    ):
        for call in (fs.cat_file, fs.info, fs.ls):
            with pytest.raises(FileNotFoundError):
                call(path)
