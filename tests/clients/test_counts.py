"""What a node counts: downloads, once for each that a person would call one, and when tokens were used."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cairn import Node
from http_client import follow, request
from huggingface_hub import HfApi
from publisher import Account, Publisher

FILES = {"README.md": b"# A model\n", "config.json": b"{}\n", "a/b.txt": b"b\n", "a/c.txt": b"c\n"}
LARGE_BYTES = 2 << 20

COUNTED = {"X_HF_Download_Counter": "1", "User_Agent": "test/1; hf_hub/2; python/3"}


def fill(account: Account, repo: str) -> str:
    for path, content in FILES.items():
        account.api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo)
    return repo


@pytest.fixture
def repo(publisher: Publisher, ada: Account) -> str:
    """A repository of several files that nobody has downloaded."""
    return fill(ada, publisher.repo(ada))


@pytest.fixture
def private(publisher: Publisher, ada: Account) -> str:
    return fill(ada, publisher.repo(ada, private=True))


def client(publisher: Publisher, name: str) -> HfApi:
    """A program of somebody without a token."""
    return HfApi(endpoint=publisher.url, token=False, library_name=name, library_version="1")


def counts(account: Account, repo: str) -> tuple[int, int]:
    """Downloads of the last thirty days, and all."""
    info = account.api.model_info(repo, expand=["downloads", "downloadsAllTime"])
    return info.downloads, info.downloads_all_time


# --- downloads --------------------------------------------------------------------------------


def test_a_snapshot_of_many_files_is_one_download(
    publisher: Publisher, ada: Account, repo: str, tmp_path: Path
) -> None:
    assert counts(ada, repo) == (0, 0)
    first = client(publisher, "first")
    root = Path(first.snapshot_download(repo, cache_dir=tmp_path / "1"))
    assert {path: (root / path).read_bytes() for path in FILES} == FILES
    assert counts(ada, repo) == (1, 1)
    # Again, with nothing kept: still the same person's download.
    first.snapshot_download(repo, cache_dir=tmp_path / "2")
    first.hf_hub_download(repo, "config.json", cache_dir=tmp_path / "3")
    assert counts(ada, repo) == (1, 1)
    client(publisher, "second").snapshot_download(repo, cache_dir=tmp_path / "4")
    assert counts(ada, repo) == (2, 2)


def test_accounts_are_readers_whatever_their_program(
    publisher: Publisher, ada: Account, bob: Account, repo: str, tmp_path: Path
) -> None:
    for at, account in enumerate((ada, bob)):
        for name in ("first", "second"):
            api = HfApi(endpoint=publisher.url, token=account.token, library_name=name)
            api.snapshot_download(repo, cache_dir=tmp_path / f"{account.name}-{name}")
        assert counts(ada, repo) == (at + 1, at + 1)


def test_files_of_a_model_that_a_library_loads_one_by_one_are_one_download(
    publisher: Publisher, ada: Account, repo: str
) -> None:
    from huggingface_hub import hf_hub_download

    for file_type, path in (("config", "config.json"), ("model", "a/b.txt"), ("tokenizer", "a/c.txt")):
        hf_hub_download(
            repo,
            path,
            endpoint=publisher.url,
            token=False,
            library_name="transformers",
            library_version="5",
            user_agent={"file_type": file_type, "from_auto_class": True},
        )
    assert counts(ada, repo) == (1, 1)


def test_a_large_file_alone_is_a_download(
    publisher: Publisher, ada: Account, upload_path: str, tmp_path: Path
) -> None:
    """Through xet it is not asked for by its path at all."""
    repo = fill(ada, publisher.repo(ada))
    content = (upload_path + ada.name).encode() * (LARGE_BYTES // 6)
    ada.api.upload_file(path_or_fileobj=content, path_in_repo="model.safetensors", repo_id=repo)
    first = client(publisher, "first")
    root = Path(first.snapshot_download(repo, allow_patterns="*.safetensors", cache_dir=tmp_path))
    assert (root / "model.safetensors").read_bytes() == content
    assert counts(ada, repo) == (1, 1)


def test_only_what_asks_to_be_counted_and_succeeds_is(
    publisher: Publisher, ada: Account, nobody: Account, repo: str, private: str
) -> None:
    file = f"/{repo}/resolve/main/config.json"
    for target, headers, status in (
        (file, {}, 200),
        (file, {"X_HF_Download_Counter": "0"}, 200),
        (f"/{repo}/raw/main/config.json", COUNTED, 200),
        (f"/{repo}/resolve/main/absent", COUNTED, 404),
        (f"/{repo}/resolve/absent/config.json", COUNTED, 404),
        (f"/{private}/resolve/main/config.json", COUNTED, 401),
        (f"/api/models/{private}/xet-read-token/main", COUNTED, 401),
        (f"/api/models/{repo}", COUNTED, 200),
        (f"/api/models/{repo}/tree/main", COUNTED, 200),
    ):
        # Twice: the second answer may be one that was kept.
        for _ in range(2):
            assert request(publisher.url, target, **headers).status == status, target
    # Who looks at what there is does not download it.
    nobody.api.model_info(repo, files_metadata=True)
    nobody.api.list_repo_files(repo)
    assert (counts(ada, repo), counts(ada, private)) == ((0, 0), (0, 0))
    answer = request(publisher.url, file, "HEAD", **COUNTED)
    assert (answer.status, counts(ada, repo)) == (200, (1, 1))
    answer = request(publisher.url, file, **COUNTED, Range="bytes=0-0")
    assert (answer.status, counts(ada, repo)) == (206, (1, 1))
    ada.api.hf_hub_download(private, "config.json")
    assert counts(ada, private) == (1, 1)


def test_a_repository_that_is_shown_or_renamed_keeps_its_count(
    publisher: Publisher, ada: Account, private: str
) -> None:
    ada.api.hf_hub_download(private, "config.json")
    ada.api.update_repo_settings(private, private=False)
    assert counts(ada, private) == (1, 1)
    ada.api.move_repo(private, f"{private}-moved")
    assert counts(ada, f"{private}-moved") == (1, 1)


def test_lists_are_sorted_by_downloads(publisher: Publisher, tmp_path: Path) -> None:
    owner = publisher.account("popular")
    names = [fill(owner, publisher.repo(owner)) for _ in range(4)]
    wanted = {names[2]: 3, names[0]: 2, names[3]: 1, names[1]: 0}
    for name, times in wanted.items():
        for at in range(times):
            api = client(publisher, f"reader-{at}")
            api.hf_hub_download(name, "config.json", cache_dir=tmp_path / f"{at}")
    listed = list(owner.api.list_models(author=owner.name, sort="downloads"))
    assert [(model.id, model.downloads) for model in listed] == list(wanted.items())
    pages = follow(publisher.url, f"/api/models?author={owner.name}&sort=downloads&limit=1")
    assert [[item["id"] for item in page.json()] for page in pages] == [[name] for name in wanted]


def test_info_on_the_command_line_shows_downloads(
    publisher: Publisher, ada: Account, repo: str
) -> None:
    client(publisher, "first").hf_hub_download(repo, "config.json")
    info = publisher.node.run("info", repo)
    assert (info["downloads"], info["downloads_all_time"]) == (1, 1)


# --- tokens -----------------------------------------------------------------------------------


def last_used(publisher: Publisher, user: str, name: str) -> int | None:
    tokens = publisher.node.run("admin", "token", "list", "--user", user)["tokens"]
    (found,) = [token["last_used"] for token in tokens if token["name"] == name]
    return found


def test_the_last_use_of_a_token_is_shown(publisher: Publisher, ada: Account, repo: str) -> None:
    for name, use in {
        "for whoami": lambda api: api.whoami(),
        # An answer that is kept for everybody: whose token came with it is known all the same.
        "for files": lambda api: api.hf_hub_download(repo, "config.json"),
    }.items():
        client(publisher, "first").hf_hub_download(repo, "config.json", force_download=True)
        holder = publisher.as_token(publisher.token(ada.name, name=name), ada.name)
        assert last_used(publisher, ada.name, name) is None
        before = int(time.time())
        use(holder.api)
        used = last_used(publisher, ada.name, name)
        assert before <= used <= time.time(), name
        shown = request(
            publisher.url, "/api/settings/tokens", Authorization=f"Bearer {ada.token}"
        ).json()
        (found,) = [token["lastUsed"] for token in shown if token["name"] == name]
        assert datetime.fromisoformat(found) == datetime.fromtimestamp(used, UTC)


def test_who_asks_in_vain_uses_nothing(publisher: Publisher, ada: Account) -> None:
    token = publisher.token(ada.name, name="unused")
    request(publisher.url, "/api/whoami-v2", Authorization=f"Bearer {token}x")
    assert last_used(publisher, ada.name, "unused") is None


# --- what stays -------------------------------------------------------------------------------


def test_counts_and_uses_outlive_an_orderly_restart(lone_node: Node, tmp_path: Path) -> None:
    before = Publisher(lone_node.start())
    eve = before.account("eve")
    repo, deleted = (fill(eve, before.repo(eve)) for _ in range(2))
    for name in (repo, deleted):
        for reader in ("first", "second"):
            client(before, reader).snapshot_download(name, cache_dir=tmp_path / name / reader)
    eve.api.delete_repo(deleted)
    used = last_used(before, "eve", "test")
    assert (counts(eve, repo), used is not None) == ((2, 2), True)
    assert lone_node.stop() == 0

    # Nothing in the file tells who it was.
    text = (lone_node.data / "counters").read_text()
    assert repo not in text and "127.0.0.1" not in text and "first" not in text
    assert text.count('"days"') == 1, "what was deleted has left"

    after = Publisher(lone_node.start())
    assert last_used(after, "eve", "test") == used
    eve = after.as_token(eve.token, "eve")
    assert counts(eve, repo) == (2, 2)
    client(after, "third").snapshot_download(repo, cache_dir=tmp_path / "third")
    assert counts(eve, repo) == (3, 3)
    assert lone_node.stop() == 0

    # Damaged, it means no more than that it all begins anew.
    (lone_node.data / "counters").write_bytes(b"junk")
    again = Publisher(lone_node.start())
    assert "counted anew" in lone_node.log.read_text()
    assert counts(again.as_token(eve.token, "eve"), repo) == (0, 0)
