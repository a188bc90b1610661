"""Repositories are made, renamed, hidden and deleted; branches, tags and histories are moved."""

import http.client
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cairn import CommandFailed, Node
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
# Moves that are killed, each a little later in its course.
KILLS = 12
REDIRECTS_MAX = 8


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


# --- moved to another account -----------------------------------------------------------------


@pytest.fixture(scope="session")
def boss(publisher: Publisher) -> Account:
    """An account that administers the node."""
    return publisher.account("boss", "--admin")


def state(account: Account, repo: str, kind: str = "model") -> tuple:
    """All that a repository holds that goes with it."""
    refs = account.api.list_repo_refs(repo, repo_type=kind)
    commits = account.api.list_repo_commits(repo, repo_type=kind)
    return (
        {ref.ref: ref.target_commit for ref in [*refs.branches, *refs.tags]},
        [commit.commit_id for commit in commits],
        contents(account, repo, kind),
    )


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_repository_goes_to_another_account(
    publisher: Publisher,
    ada: Account,
    bob: Account,
    boss: Account,
    nobody: Account,
    kind: str,
    private: bool,
) -> None:
    old, new = publisher.repo(ada, kind, private=private), publisher.fresh_name(bob, "Moved")
    reader = publisher.account(f"reader-{kind}-{private}".lower())
    for who, access in ((bob, "manage"), (reader, "write")):
        if kind == "model":
            publisher.grant(old, who.name, access)
    mover = bob if kind == "model" else boss
    upload(ada, old, repo_type=kind)
    upload(ada, old, "weights.bin", b"\0" * 70_000, repo_type=kind)
    ada.api.create_tag(old, tag="v1", repo_type=kind)
    for at in range(20):
        ada.api.create_branch(old, branch=f"branch-{at}", repo_type=kind)
    before = state(ada, old, kind)
    mover.api.move_repo(old, new, repo_type=kind)
    info = bob.api.repo_info(new, repo_type=kind)
    assert (info.id, info.private, info.author) == (new, private, bob.name)
    readers = [bob, boss, *([reader] if kind == "model" else []), *([] if private else [ada, nobody])]
    for account in readers:
        for name in (old, new):
            assert account.api.repo_info(name, repo_type=kind).id == new
            assert state(account, name, kind) == before
    prefix = "" if kind == "model" else f"{kind}s/"
    for target in (f"/api/{kind}s/{old}", f"/{prefix}{old}/resolve/main/a.txt"):
        answer = request(publisher.url, target, Authorization=f"Bearer {bob.token}")
        assert (answer.status, answer["Location"]) == (307, target.replace(old, new))
    # Whose it was has no more right to it than others; who was let in keeps theirs.
    if private:
        for account in (ada, nobody):
            for name in (old, new):
                with hidden():
                    account.api.repo_info(name, repo_type=kind)
    else:
        with refused(403):
            upload(ada, new, repo_type=kind)
    writer = reader if kind == "model" else bob
    later = upload(writer, old, "later.txt", repo_type=kind)
    assert bob.api.repo_info(new, repo_type=kind).sha == later


def test_old_names_lead_on_wherever_a_repository_goes(
    publisher: Publisher, ada: Account, bob: Account, boss: Account, nobody: Account
) -> None:
    names = [publisher.repo(ada)]
    commit = upload(ada, names[0])

    def go(owner: Account) -> str:
        new = publisher.fresh_name(owner)
        boss.api.move_repo(names[-1], new)
        names.append(new)
        for name in names:
            info = boss.api.repo_info(name)
            assert (info.id, info.sha) == (new, commit), name
        return new

    for owner in (ada, bob, bob, ada, bob):
        go(owner)
    boss.api.update_repo_settings(names[-1], private=True)
    with hidden():
        nobody.api.repo_info(names[0])
    go(bob)
    go(ada)
    boss.api.update_repo_settings(names[-1], private=False)
    new = go(bob)
    assert nobody.api.repo_info(names[0]).id == new
    # Back to where it began.
    boss.api.move_repo(new, names[0])
    for name in names:
        assert nobody.api.repo_info(name).id == names[0]
    # A new repository takes an old name, and nothing is left of it when that one is gone.
    boss.api.move_repo(names[0], names[2])
    ada.api.create_repo(names[0])
    assert [nobody.api.repo_info(name).id for name in (names[0], names[2])] == [names[0], names[2]]
    ada.api.delete_repo(names[0])
    with hidden():
        nobody.api.repo_info(names[0])
    boss.api.delete_repo(names[2])
    for name in names:
        assert not nobody.api.repo_exists(name)


def test_a_repository_goes_from_the_nodes_own_namespace_and_back(
    publisher: Publisher, boss: Account, bob: Account, nobody: Account, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\n")
    pushed = publisher.node.push(tmp_path, "goes")
    there, back = publisher.fresh_name(bob), "local/came-back"
    boss.api.move_repo("local/goes", there)
    for name in ("local/goes", pushed.repo, there):
        info = nobody.api.repo_info(name)
        assert (info.id, info.sha) == (there, pushed.commit)
    boss.api.move_repo(there, back)
    for name in ("local/goes", there, back):
        assert nobody.api.repo_info(name).id == f"{publisher.node.namespace}/came-back"
    # What is private is an account's.
    private = publisher.repo(bob, private=True)
    with refused(400, BadRequestError):
        boss.api.move_repo(private, "local/private")
    assert bob.api.repo_info(private).private


def test_an_old_name_is_taken_whether_it_was_public_or_private(
    publisher: Publisher, ada: Account, bob: Account, boss: Account
) -> None:
    old, there = publisher.repo(ada, private=True), publisher.fresh_name(bob)
    boss.api.move_repo(old, there)
    ada.api.create_repo(old)
    ada.api.delete_repo(old)
    assert not boss.api.repo_exists(old)
    assert boss.api.repo_info(there).private


def test_who_takes_a_repository_elsewhere(
    publisher: Publisher, ada: Account, bob: Account, boss: Account, repo: str
) -> None:
    commit = upload(ada, repo)
    there = publisher.fresh_name(bob)
    # The account that it would go to did not ask for it; the one that asks may not manage it.
    with refused(403):
        ada.api.move_repo(repo, there)
    with refused(403):
        bob.api.move_repo(repo, there)
    publisher.grant(repo, bob.name, "write")
    with refused(403):
        bob.api.move_repo(repo, there)
    publisher.grant(repo, bob.name, "manage")
    limited = publisher.as_token(publisher.token(bob.name, repos=[repo], name="limited"))
    with refused(403):
        limited.api.move_repo(repo, there)
    with refused(404):
        boss.api.move_repo(repo, "no-such-namespace/model")
    hidden_one = publisher.repo(ada, private=True)
    with refused(404, RepositoryNotFoundError):
        bob.api.move_repo(hidden_one, publisher.fresh_name(bob))
    # Both of an account's namespaces go by one name.
    for private in (False, True):
        other = publisher.repo(bob, private=private)
        with pytest.raises(HfHubHTTPError, match=f"A model repository called {other} already exists") as error:
            boss.api.move_repo(repo, other)
        assert error.value.response.status_code == 409
    assert ada.api.repo_info(repo).sha == commit
    bob.api.move_repo(repo, there)
    assert ada.api.repo_info(repo).id == there


def test_a_move_that_was_killed_is_completed_by_the_next(lone_node: Node) -> None:
    publisher = Publisher(lone_node.start())
    ada, boss = publisher.account("ada"), publisher.account("boss", "--admin")
    names = [publisher.repo(ada, private=True)]
    commit = upload(ada, names[0])
    for at in range(60):
        ada.api.create_branch(names[0], branch=f"branch-{at}")
    before = state(ada, names[0])
    names.append("boss/first")
    begin = time.monotonic()
    boss.api.move_repo(*names)
    seconds = time.monotonic() - begin
    cut_off = 0
    for at in range(KILLS):
        names.append(f"{(ada, boss)[at % 2].name}/round-{at}")
        body = json.dumps({"fromRepo": names[-2], "toRepo": names[-1]}).encode()
        headers = {"Authorization": f"Bearer {boss.token}", "Content_Type": "application/json"}
        killer = threading.Timer(seconds * (at + 0.5) / KILLS, lone_node.kill)
        killer.start()
        try:
            request(publisher.url, "/api/repos/move", "POST", body, **headers)
        except (OSError, http.client.HTTPException):
            cut_off += 1
        killer.join()
        publisher = Publisher(lone_node.start())
        boss = publisher.as_token(boss.token, boss.name)
        # Under its old name all of it is there, whether or not it has the new one already.
        assert state(boss, names[-2]) == before
        boss.api.move_repo(names[-2], names[-1])
        # Longer chains are not followed.
        for name in names[-REDIRECTS_MAX:]:
            info = boss.api.repo_info(name)
            assert (info.id, info.sha, info.private) == (names[-1], commit, True), name
        assert state(boss, names[-1]) == before
        assert [model.id for model in boss.api.list_models()] == [names[-1]]
    assert cut_off > KILLS / 4
    assert lone_node.stop() == 0


def test_a_change_of_visibility_that_was_killed_leaves_one_repository(lone_node: Node) -> None:
    """Seen as it was or as it is to be, with the same members; and a start completes what was begun."""
    publisher = Publisher(lone_node.start())
    ada, bob = publisher.account("ada"), publisher.account("bob")
    repo = publisher.repo(ada, private=True)
    upload(ada, repo)
    for at in range(40):
        ada.api.create_branch(repo, branch=f"branch-{at}")
    publisher.grant(repo, "bob", "write")
    before = state(ada, repo)
    begin = time.monotonic()
    ada.api.update_repo_settings(repo, private=False)
    seconds = time.monotonic() - begin
    cut_off = 0
    for at in range(KILLS):
        private = at % 2 == 0
        killer = threading.Timer(seconds * (at + 0.5) / KILLS, lone_node.kill)
        killer.start()
        try:
            body = json.dumps({"private": private}).encode()
            headers = {"Authorization": f"Bearer {ada.token}", "Content_Type": "application/json"}
            request(publisher.url, f"/api/models/{repo}/settings", "PUT", body, **headers)
        except (OSError, http.client.HTTPException):
            cut_off += 1
        killer.join()
        publisher = Publisher(lone_node.start())
        ada, bob = publisher.as_token(ada.token, "ada"), publisher.as_token(bob.token, "bob")
        assert [model.id for model in ada.api.list_models()] == [repo]
        assert state(ada, repo) == before
        ada.api.update_repo_settings(repo, private=private)
        assert [(model.id, model.private) for model in ada.api.list_models()] == [(repo, private)]
        assert state(bob, repo) == before
        bob.api.auth_check(repo, write=True)
    assert cut_off > KILLS / 4
    assert lone_node.stop() == 0


def test_who_is_let_out_while_a_repository_moves_stays_out(lone_node: Node) -> None:
    publisher = Publisher(lone_node.start())
    ada, boss = publisher.account("ada"), publisher.account("boss", "--admin")
    repo = publisher.repo(ada, private=True)
    upload(ada, repo)
    for at in range(60):
        ada.api.create_branch(repo, branch=f"branch-{at}")
    members = [publisher.account(f"member-{at}") for at in range(30)]
    for member in members:
        publisher.grant(repo, member.name, "read")
    moved = threading.Event()

    def move() -> None:
        boss.api.move_repo(repo, "boss/moved")
        moved.set()

    mover = threading.Thread(target=move)
    out = []
    for at, member in enumerate(members):
        if at == 1:
            mover.start()
        # Where it is no more nobody is let out of it, and that is an error.
        with suppress(CommandFailed):
            publisher.grant(repo, member.name, "none")
            out.append(member)
        if moved.is_set():
            break
    mover.join()
    assert moved.is_set() and out
    for member in members:
        if member in out:
            with hidden():
                member.api.repo_info("boss/moved")
        else:
            member.api.repo_info("boss/moved")
    assert lone_node.stop() == 0


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
