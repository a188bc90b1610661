"""Commits that can't be: each raises the client's own class, says why, and leaves all as it was."""

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from publisher import Account, Publisher, contents, refused, titles

FILES = {"a.txt": b"a\n", "folder/b.txt": b"b\n"}


def add(path: str, content: bytes = b"new\n") -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


@pytest.fixture
def repo(publisher: Publisher, ada: Account) -> str:
    repo = publisher.repo(ada)
    ada.api.create_commit(repo, [add(*file) for file in FILES.items()], commit_message="Begin")
    return repo


@pytest.fixture
def unchanged(ada: Account, repo: str):
    """Looks, when the test is over, that nothing came of it."""
    before = titles(ada, repo)
    yield
    assert (titles(ada, repo), contents(ada, repo)) == (before, FILES)


def test_a_parent_that_is_no_longer_the_head(ada: Account, repo: str) -> None:
    first = ada.api.repo_info(repo).sha
    second = ada.api.create_commit(
        repo, [add("c.txt")], commit_message="Second", parent_commit=first
    ).oid
    with refused(412, match="The branch was updated since you opened this page"):
        ada.api.create_commit(repo, [add("d.txt")], commit_message="Late", parent_commit=first)
    # A few digits name a commit, too.
    ada.api.create_commit(repo, [add("e.txt")], commit_message="Third", parent_commit=second[:7])
    assert set(contents(ada, repo)) == {*FILES, "c.txt", "e.txt"}
    with refused(412):
        ada.api.create_commit(repo, [add("f.txt")], commit_message="x", parent_commit="0" * 40)


@pytest.mark.usefixtures("unchanged")
def test_what_is_missing_is_not_deleted(ada: Account, repo: str) -> None:
    for operation in (
        CommitOperationDelete("absent.txt"),
        CommitOperationDelete("absent/"),
        # A folder as a file, a file as a folder.
        CommitOperationDelete("folder", is_folder=False),
        CommitOperationDelete("a.txt", is_folder=True),
        CommitOperationDelete("folder/absent.txt"),
    ):
        with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist") as error:
            ada.api.create_commit(repo, [add("x.txt"), operation], commit_message="x")
        assert type(error.value) is RemoteEntryNotFoundError
        assert "trailing '/'" in str(error.value)


@pytest.mark.usefixtures("unchanged")
def test_where_there_is_nothing_to_commit_to(publisher: Publisher, ada: Account, repo: str) -> None:
    for revision in ("absent", "feature/absent", ada.api.repo_info(repo).sha):
        with refused(404, RevisionNotFoundError):
            ada.api.create_commit(repo, [add("x.txt")], commit_message="x", revision=revision)
    with refused(404, RepositoryNotFoundError, match="create_repo"):
        ada.api.create_commit(publisher.fresh_name(ada), [add("x.txt")], commit_message="x")
    with refused(404, RepositoryNotFoundError):
        ada.api.create_commit(repo, [add("x.txt")], commit_message="x", repo_type="dataset")


@pytest.mark.usefixtures("unchanged")
def test_files_are_not_folders(ada: Account, repo: str) -> None:
    for path in ("a.txt/below.txt", "folder"):
        with pytest.raises(HfHubHTTPError) as error:
            ada.api.create_commit(repo, [add(path)], commit_message="x")
        assert 400 <= error.value.response.status_code < 500, path


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", ["..\\up.txt", "a//b.txt", "folder/./c.txt", ".git/config", "x/.GIT/y"])
def test_paths_that_git_or_others_could_not_hold(ada: Account, repo: str, path: str) -> None:
    operation = add("fine.txt")
    # Past what the client itself refuses.
    operation.path_in_repo = path
    with refused(422):
        ada.api.create_commit(repo, [operation], commit_message="x")


@pytest.mark.usefixtures("unchanged")
def test_a_card_that_can_not_be_read(ada: Account, repo: str) -> None:
    for card in ("---\nlicense: [mit\n---\n# x\n", "---\nmodel-index: none\n---\n# x\n"):
        with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
            ada.api.upload_file(
                path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo
            )


@pytest.mark.usefixtures("clients_at_publisher")
def test_a_card_is_pushed_and_read_back(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada)
    card = ModelCard("---\nlicense: apache-2.0\ntags:\n- tiny\nlanguage: en\n---\n\n# A card\n")
    card.validate()
    card.push_to_hub(repo, token=ada.token)
    info = ada.api.model_info(repo)
    assert (info.card_data.license, info.card_data.language) == ("apache-2.0", "en")
    assert {"tiny", "license:apache-2.0", "en"} <= set(info.tags)
    assert ModelCard.load(repo, token=ada.token).data.tags == ["tiny"]


@pytest.mark.usefixtures("unchanged")
def test_pull_requests_are_refused_and_not_committed(ada: Account, repo: str) -> None:
    with refused(400, BadRequestError, match="Pull requests"):
        ada.api.create_commit(repo, [add("x.txt")], commit_message="x", create_pr=True)


@pytest.mark.usefixtures("unchanged")
def test_gates_are_refused(ada: Account, repo: str) -> None:
    with refused(400, BadRequestError):
        ada.api.update_repo_settings(repo, gated="auto")
    ada.api.update_repo_settings(repo, gated=False)
    assert ada.api.model_info(repo).gated is False
