"""Repositories are made, renamed, hidden and deleted; branches, tags and histories are moved."""

import json
from pathlib import Path

import pytest
from http_client import request
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from publisher import Account, Publisher, contents, hidden, refused, titles

KINDS = ["model", "dataset", "space"]


def upload(account: Account, repo: str, path: str = "a.txt", content: bytes = b"a\n", **options: str) -> str:
    """Commits one small file; the new commit's id."""
    options.setdefault("commit_message", f"Add {path}")
    return account.api.upload_file(
        path_or_fileobj=content, path_in_repo=path, repo_id=repo, **options
    ).oid


@pytest.fixture
def repo(publisher: Publisher, ada: Account) -> str:
    return publisher.repo(ada)


# --- made and deleted -------------------------------------------------------------------------


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_is_made_and_deleted(
    publisher: Publisher, ada: Account, kind: str, private: bool
) -> None:
    name = publisher.fresh_name(ada, kind)
    options = {"space_sdk": "gradio"} if kind == "space" else {}
    url = ada.api.create_repo(name, repo_type=kind, private=private, **options)
    assert (url.repo_id, url.repo_type, url.endpoint) == (name, kind, publisher.url)
    assert str(url) == f"{publisher.url}/{'' if kind == 'model' else kind + 's/'}{name}"
    info = ada.api.repo_info(name, repo_type=kind)
    assert (info.id, info.private, info.author) == (name, private, ada.name)
    assert ada.api.list_repo_files(name, repo_type=kind) == [".gitattributes"]
    (commit,) = ada.api.list_repo_commits(name, repo_type=kind)
    assert (commit.title, commit.commit_id) == ("initial commit", info.sha)
    ada.api.delete_repo(name, repo_type=kind)
    assert not ada.api.repo_exists(name, repo_type=kind)
    # Its name is free again, and nothing of it is left.
    ada.api.create_repo(name, repo_type=kind, **options)
    assert ada.api.list_repo_files(name, repo_type=kind) == [".gitattributes"]


def test_a_name_without_a_namespace_is_the_callers(publisher: Publisher, ada: Account) -> None:
    name = publisher.fresh_name(ada)
    assert ada.api.create_repo(name.split("/")[1]).repo_id == name
    ada.api.delete_repo(name.split("/")[1])
    assert not ada.api.repo_exists(name)


def test_a_repository_is_made_once(publisher: Publisher, ada: Account, repo: str) -> None:
    commit = upload(ada, repo)
    with refused(409, match="already created this model repo"):
        ada.api.create_repo(repo)
    # Names differ by more than their case.
    with refused(409):
        ada.api.create_repo(repo.replace("model", "MODEL"))
    assert ada.api.create_repo(repo, exist_ok=True).repo_id == repo
    assert ada.api.repo_info(repo).sha == commit
    # Another kind of the same name is another repository.
    ada.api.create_repo(repo, repo_type="dataset")
    assert ada.api.repo_info(repo).sha == commit


def test_a_space_needs_an_sdk(publisher: Publisher, ada: Account) -> None:
    name = publisher.fresh_name(ada).split("/")[1]
    answer = request(
        publisher.url,
        "/api/repos/create",
        "POST",
        json.dumps({"name": name, "type": "space"}).encode(),
        Authorization=f"Bearer {ada.token}",
        Content_Type="application/json",
    )
    assert answer.status == 400
    assert "sdk" in answer.json()["error"]


def test_what_is_missing_is_deleted_only_on_request(publisher: Publisher, ada: Account) -> None:
    name = publisher.fresh_name(ada)
    with refused(404, RepositoryNotFoundError, match=r"404 Client Error\. \(Request ID: .+\)"):
        ada.api.delete_repo(name)
    ada.api.delete_repo(name, missing_ok=True)
    ada.api.create_repo(name)
    # A model is no dataset.
    with refused(404, RepositoryNotFoundError):
        ada.api.delete_repo(name, repo_type="dataset")
    assert ada.api.repo_exists(name)


def test_nobody_makes_repositories_of_another(
    publisher: Publisher, ada: Account, bob: Account, nobody: Account, repo: str
) -> None:
    for name in (publisher.fresh_name(ada), "no-such-namespace/model"):
        with refused(403):
            bob.api.create_repo(name)
    with refused(401):
        nobody.api.create_repo(publisher.fresh_name(ada))
    # What is there already may be asked for by everybody who sees it.
    assert bob.api.create_repo(repo, exist_ok=True).repo_id == repo


# --- renamed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_an_old_name_leads_to_the_new_one(
    publisher: Publisher, ada: Account, bob: Account, nobody: Account, kind: str
) -> None:
    old, new = publisher.repo(ada, kind), publisher.fresh_name(ada, "renamed")
    commit = upload(ada, old, repo_type=kind)
    ada.api.move_repo(old, new, repo_type=kind)
    for reader in (bob, nobody):
        for name in (old, new):
            info = reader.api.repo_info(name, repo_type=kind)
            assert (info.id, info.sha) == (new, commit)
            assert contents(reader, name, kind) == {"a.txt": b"a\n"}
            files = reader.api.list_repo_files(name, repo_type=kind)
            assert set(files) == {".gitattributes", "a.txt"}
    prefix = "" if kind == "model" else f"{kind}s/"
    for target in (f"/api/{kind}s/{old}", f"/{prefix}{old}/resolve/main/a.txt"):
        answer = request(publisher.url, target)
        assert (answer.status, answer["Location"]) == (307, target.replace(old, new))
    # Who still has the old name publishes under the new one.
    later = upload(ada, old, "b.txt", repo_type=kind)
    assert ada.api.repo_info(new, repo_type=kind).sha == later


def test_a_name_in_use_is_no_new_name(publisher: Publisher, ada: Account, repo: str) -> None:
    other = publisher.repo(ada)
    with pytest.raises(HfHubHTTPError, match=f"A model repository called {other} already exists"):
        ada.api.move_repo(repo, other)
    with refused(404, RepositoryNotFoundError):
        ada.api.move_repo(publisher.fresh_name(ada), publisher.fresh_name(ada))
    assert ada.api.repo_exists(repo)


def test_a_repository_can_have_its_old_name_again(
    publisher: Publisher, ada: Account, repo: str
) -> None:
    new = publisher.fresh_name(ada)
    commit = upload(ada, repo)
    ada.api.move_repo(repo, new)
    ada.api.move_repo(new, repo)
    for name in (repo, new):
        info = ada.api.repo_info(name)
        assert (info.id, info.sha) == (repo, commit)


def test_the_old_names_of_a_deleted_repository_are_free(
    publisher: Publisher, ada: Account, repo: str
) -> None:
    new = publisher.fresh_name(ada)
    ada.api.move_repo(repo, new)
    ada.api.delete_repo(new)
    for name in (repo, new):
        with hidden():
            ada.api.repo_info(name)
        assert ada.api.create_repo(name, exist_ok=True).repo_id == name
        assert ada.api.repo_info(name).id == name


@pytest.mark.parametrize("private", [False, True])
def test_old_names_lead_on_when_a_repository_is_hidden_and_shown(
    publisher: Publisher, ada: Account, nobody: Account, private: bool
) -> None:
    old, new = publisher.repo(ada, private=private), publisher.fresh_name(ada)
    ada.api.move_repo(old, new)
    assert ada.api.repo_info(old).id == new
    ada.api.update_repo_settings(new, private=True)
    assert ada.api.repo_info(old).id == new
    with hidden():
        nobody.api.repo_info(old)
    ada.api.update_repo_settings(new, private=False)
    for reader in (ada, nobody):
        assert reader.api.repo_info(old).id == new


# --- branches, tags, histories ----------------------------------------------------------------


def branches(account: Account, repo: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in account.api.list_repo_refs(repo).branches}


def tags(account: Account, repo: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in account.api.list_repo_refs(repo).tags}


def test_branches_begin_where_they_are_told(ada: Account, repo: str) -> None:
    initial = ada.api.repo_info(repo).sha
    head = upload(ada, repo)
    ada.api.create_branch(repo, branch="from-main")
    ada.api.create_branch(repo, branch="feature/from-commit", revision=initial)
    ada.api.create_branch(repo, branch="from-branch", revision="feature/from-commit")
    assert branches(ada, repo) == {
        "main": head,
        "from-main": head,
        "feature/from-commit": initial,
        "from-branch": initial,
    }
    ada.api.delete_branch(repo, branch="feature/from-commit")
    ada.api.delete_branch(repo, branch="from-branch")
    assert set(branches(ada, repo)) == {"main", "from-main"}


def test_branches_that_can_not_be(ada: Account, repo: str) -> None:
    ada.api.create_branch(repo, branch="dev")
    ada.api.create_tag(repo, tag="v1")
    with refused(409, match="Reference refs/heads/dev already exists"):
        ada.api.create_branch(repo, branch="dev")
    ada.api.create_branch(repo, branch="dev", exist_ok=True)
    with refused(400, BadRequestError, match="Invalid reference for a branch"):
        ada.api.create_branch(repo, branch="refs/pr/5")
    with refused(404, RevisionNotFoundError):
        ada.api.create_branch(repo, branch="other", revision="absent")
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        ada.api.delete_branch(repo, branch="main")
    for missing in ("absent", "v1"):
        with pytest.raises(HfHubHTTPError, match="Invalid rev"):
            ada.api.delete_branch(repo, branch=missing)
    # A branch may have the name of a tag.
    ada.api.create_branch(repo, branch="v1")
    assert set(branches(ada, repo)) == {"main", "dev", "v1"}


def test_tags_name_any_revision(ada: Account, repo: str) -> None:
    initial = ada.api.repo_info(repo).sha
    head = upload(ada, repo)
    ada.api.create_branch(repo, branch="dev", revision=initial)
    ada.api.create_tag(repo, tag="on-main", tag_message="First")
    ada.api.create_tag(repo, tag="on/branch", revision="dev")
    ada.api.create_tag(repo, tag="on-commit", revision=initial)
    ada.api.create_tag(repo, tag="on-short", revision=head[:8])
    assert tags(ada, repo) == {
        "on-main": head,
        "on/branch": initial,
        "on-commit": initial,
        "on-short": head,
    }
    assert contents(ada, repo, revision="on-main") == {"a.txt": b"a\n"}
    ada.api.delete_tag(repo, tag="on/branch")
    ada.api.delete_tag(repo, tag="on-short")
    assert set(tags(ada, repo)) == {"on-main", "on-commit"}


def test_tags_that_can_not_be(ada: Account, repo: str) -> None:
    ada.api.create_tag(repo, tag="v1")
    ada.api.create_branch(repo, branch="dev")
    with refused(409):
        ada.api.create_tag(repo, tag="v1")
    ada.api.create_tag(repo, tag="v1", exist_ok=True)
    with refused(404, RevisionNotFoundError):
        ada.api.create_tag(repo, tag="v2", revision="absent")
    with pytest.raises(HfHubHTTPError) as error:
        ada.api.create_tag(repo, tag="not a..name")
    assert 400 <= error.value.response.status_code < 500
    with refused(404, RevisionNotFoundError):
        ada.api.delete_tag(repo, tag="absent")
    with pytest.raises(HfHubHTTPError):
        ada.api.delete_tag(repo, tag="dev")
    # A tag does not move.
    with pytest.raises(HfHubHTTPError):
        upload(ada, repo, revision="v1")
    assert (set(tags(ada, repo)), set(branches(ada, repo))) == ({"v1"}, {"main", "dev"})


def test_a_squashed_history_is_one_commit(ada: Account, repo: str) -> None:
    for at in range(3):
        upload(ada, repo, f"{at}.txt")
    before = contents(ada, repo)
    ada.api.create_branch(repo, branch="dev")
    ada.api.super_squash_history(repo, commit_message="All in one")
    assert titles(ada, repo) == ["All in one"]
    assert contents(ada, repo) == before
    assert titles(ada, repo, "dev")[-1] == "initial commit"
    ada.api.super_squash_history(repo, branch="dev")
    assert titles(ada, repo, "dev") == ["Super-squash branch 'dev' using huggingface_hub"]


def test_only_branches_are_squashed(ada: Account, repo: str) -> None:
    upload(ada, repo)
    ada.api.create_tag(repo, tag="v1")
    before = titles(ada, repo)
    with refused(404, RevisionNotFoundError):
        ada.api.super_squash_history(repo, branch="absent")
    with refused(400, BadRequestError):
        ada.api.super_squash_history(repo, branch="v1")
    assert titles(ada, repo) == before


def test_a_history_is_listed_with_its_formatted_titles(ada: Account, repo: str) -> None:
    upload(ada, repo, commit_message="Weights & <b>biases</b>", commit_description="More *text*")
    plain, _ = ada.api.list_repo_commits(repo)
    assert (plain.title, plain.message) == ("Weights & <b>biases</b>", "More *text*")
    assert (plain.formatted_title, plain.formatted_message) == (None, None)
    formatted, _ = ada.api.list_repo_commits(repo, formatted=True)
    assert "&lt;b&gt;" in formatted.formatted_title
    assert formatted.formatted_message is not None
    assert formatted.title == plain.title
    with refused(404, RevisionNotFoundError):
        ada.api.list_repo_commits(repo, revision="absent")


def test_a_tree_tells_the_last_commit_of_each_entry(ada: Account, repo: str) -> None:
    first = upload(ada, repo, "folder/a.txt")
    second = upload(ada, repo, "folder/b.txt")
    third = upload(ada, repo, "c.txt")
    tree = ada.api.list_repo_tree(repo, recursive=True, expand=True)
    last = {entry.path: entry.last_commit.oid for entry in tree}
    last.pop(".gitattributes")
    assert last == {"folder": second, "folder/a.txt": first, "folder/b.txt": second, "c.txt": third}
    (entry,) = ada.api.list_repo_tree(repo, "folder", revision=first, expand=True)
    assert (entry.path, entry.last_commit.title) == ("folder/a.txt", "Add folder/a.txt")
    with refused(404, RemoteEntryNotFoundError):
        list(ada.api.list_repo_tree(repo, "absent"))


# --- the command ------------------------------------------------------------------------------


def test_hf_signs_in_and_says_who_it_is(publisher: Publisher, ada: Account, tmp_path: Path) -> None:
    home = tmp_path / "home"
    wrong = publisher.hf("auth", "login", "--token", "hf_wrong", home=home)
    assert wrong.returncode != 0
    assert "invalid" in (wrong.stdout + wrong.stderr).lower()
    done = publisher.hf("auth", "login", "--token", ada.token, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    who = publisher.hf("auth", "whoami", "--format", "quiet", home=home)
    assert (who.returncode, who.stdout.split()) == (0, [ada.name]), who.stdout + who.stderr
    # From here on no command is told the token.
    name = publisher.fresh_name(ada)
    assert publisher.hf_json("repos", "create", name, home=home)["repo_id"] == name
    assert publisher.hf("auth", "logout", home=home).returncode == 0
    assert publisher.hf("auth", "whoami", home=home).returncode != 0


def test_hf_repos_manages_a_repository(publisher: Publisher, ada: Account, tmp_path: Path) -> None:
    name, new = publisher.fresh_name(ada), publisher.fresh_name(ada)
    options = {"home": tmp_path / "home", "account": ada}

    def hf(*arguments: str) -> None:
        done = publisher.hf("repos", *arguments, **options)
        assert done.returncode == 0, done.stdout + done.stderr

    made = publisher.hf_json("repos", "create", name, "--private", **options)
    assert made["url"] == f"{publisher.url}/{name}"
    assert ada.api.repo_info(name).private
    again = publisher.hf("repos", "create", name, **options)
    assert again.returncode != 0
    assert "already created" in again.stdout + again.stderr
    hf("create", name, "--exist-ok")
    hf("settings", name, "--public")
    assert not ada.api.repo_info(name).private
    hf("branch", "create", name, "dev")
    hf("tag", "create", name, "v1")
    (tag,) = publisher.hf_json("repos", "tag", "list", name, **options)
    assert tag["name"] == "v1"
    assert set(branches(ada, name)) == {"main", "dev"}
    hf("branch", "delete", name, "dev")
    hf("tag", "delete", name, "v1", "--yes")
    assert (set(branches(ada, name)), tags(ada, name)) == ({"main"}, {})
    upload(ada, name)
    hf("delete-files", name, "*.txt")
    assert contents(ada, name) == {}
    hf("move", name, new)
    assert ada.api.repo_info(name).id == new
    hf("delete", new, "--yes")
    assert not ada.api.repo_exists(new)
    missing = publisher.hf("repos", "delete", new, "--yes", **options)
    assert missing.returncode != 0
    hf("delete", new, "--yes", "--missing-ok")



def test_a_repository_is_duplicated_with_its_history(publisher: Publisher, ada: Account, repo: str) -> None:
    """The other one begins where this one stands; what is done to either is its own."""
    upload(ada, repo, content=b"one\n")
    ada.api.create_tag(repo, tag="v1")
    copy = publisher.fresh_name(ada, "copy")
    assert ada.api.duplicate_repo(repo, copy).repo_id == copy
    commits = [commit.commit_id for commit in ada.api.list_repo_commits(repo)]
    assert [commit.commit_id for commit in ada.api.list_repo_commits(copy)] == commits
    assert [tag.name for tag in ada.api.list_repo_refs(copy).tags] == ["v1"]
    upload(ada, copy, content=b"two\n")
    assert ada.api.repo_info(repo).sha == commits[0]
    assert contents(ada, repo)["a.txt"] == b"one\n"
    with refused(409):
        ada.api.duplicate_repo(repo, copy)
    assert ada.api.duplicate_repo(repo, copy, exist_ok=True).repo_id == copy
