"""Who may do what: tokens, grants, and private repositories, which outsiders can't tell from none."""

import json
from collections.abc import Iterator

import pytest
from http_client import Answer, request
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from publisher import Account, Publisher, contents, hidden, refused

# Of two answers to the same question these differ.
OWN_HEADERS = {"date", "x-request-id"}


def upload(account: Account, repo: str, content: bytes = b"a\n", **options: str) -> str:
    return account.api.upload_file(
        path_or_fileobj=content, path_in_repo="a.txt", repo_id=repo, **options
    ).oid


@pytest.fixture(scope="module")
def public(publisher: Publisher, ada: Account) -> str:
    repo = publisher.repo(ada)
    upload(ada, repo, b"public\n")
    return repo


@pytest.fixture(scope="module")
def private(publisher: Publisher, ada: Account) -> str:
    repo = publisher.repo(ada, private=True)
    upload(ada, repo, b"private\n")
    return repo


# --- tokens -----------------------------------------------------------------------------------


def test_whoami_tells_of_the_account_and_the_token(publisher: Publisher, ada: Account) -> None:
    for scope in ("write", "read"):
        token = publisher.token(ada.name, scope, name=f"for {scope}")
        who = HfApi(endpoint=publisher.url, token=token).whoami()
        assert (who["type"], who["name"], who["orgs"]) == ("user", ada.name, [])
        found = who["auth"]["accessToken"]
        assert (found["displayName"], found["role"]) == (f"for {scope}", scope)
        assert token.startswith("hf_")


def test_a_read_token_reads_and_does_not_write(
    publisher: Publisher, ada: Account, private: str, public: str
) -> None:
    reader = publisher.as_token(publisher.token(ada.name, "read"), ada.name)
    assert contents(reader, private) == {"a.txt": b"private\n"}
    for repo in (private, public):
        for change in (
            lambda repo=repo: upload(reader, repo, b"changed\n"),
            lambda repo=repo: reader.api.create_branch(repo, branch="dev"),
            lambda repo=repo: reader.api.create_tag(repo, tag="v1"),
            lambda repo=repo: reader.api.super_squash_history(repo),
            lambda repo=repo: reader.api.update_repo_settings(repo, private=False),
            lambda repo=repo: reader.api.move_repo(repo, f"{repo}-moved"),
            lambda repo=repo: reader.api.delete_repo(repo),
            lambda: reader.api.create_repo(publisher.fresh_name(ada)),
        ):
            with refused(403, match="403 Forbidden"):
                change()
    assert contents(ada, public) == {"a.txt": b"public\n"}


def test_a_token_for_one_repository(
    publisher: Publisher, ada: Account, private: str, public: str
) -> None:
    only = publisher.repo(ada, private=True)
    limited = publisher.as_token(publisher.token(ada.name, repos=[only]), ada.name)
    assert limited.api.whoami()["auth"]["accessToken"]["role"] == "fineGrained"
    upload(limited, only)
    assert contents(limited, only) == {"a.txt": b"a\n"}
    assert contents(limited, public) == {"a.txt": b"public\n"}
    with refused(403):
        upload(limited, public)
    with hidden():
        limited.api.repo_info(private)
    with refused(403):
        limited.api.create_repo(publisher.fresh_name(ada))
    listed = {model.id for model in limited.api.list_models(author=ada.name)}
    assert (only in listed, public in listed, private in listed) == (True, True, False)


def test_a_revoked_token_is_no_token(publisher: Publisher, ada: Account, private: str) -> None:
    token = publisher.token(ada.name, name="to revoke")
    holder = publisher.as_token(token, ada.name)
    assert holder.api.repo_info(private).private
    publisher.node.run("admin", "token", "revoke", "--user", ada.name, "to revoke")
    with hidden():
        holder.api.repo_info(private)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        holder.api.whoami()


def test_the_tokens_of_a_disabled_account_are_none(publisher: Publisher, private: str) -> None:
    carol = publisher.account("carol")
    publisher.grant(private, "carol", "read")
    assert carol.api.repo_exists(private)
    publisher.node.run("admin", "user", "disable", "carol")
    assert not carol.api.repo_exists(private)
    with refused(401):
        carol.api.create_repo(publisher.fresh_name(carol))
    publisher.node.run("admin", "user", "enable", "carol")
    assert carol.api.repo_exists(private)


def test_a_wrong_token_still_reads_what_everybody_may(publisher: Publisher, public: str) -> None:
    stranger = publisher.as_token("hf_thisTokenIsOfAnotherHub")
    assert contents(stranger, public) == {"a.txt": b"public\n"}
    assert not stranger.api.repo_info(public).private
    with refused(401, match="Invalid credentials in Authorization header"):
        upload(stranger, public)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        stranger.api.whoami()


# --- grants -----------------------------------------------------------------------------------


def test_readers_read_and_writers_write(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada, private=True)
    upload(ada, repo)
    dora = publisher.account("dora")
    with hidden():
        dora.api.repo_info(repo)
    publisher.grant(repo, "dora", "read")
    assert contents(dora, repo) == {"a.txt": b"a\n"}
    assert repo in {model.id for model in dora.api.list_models()}
    with refused(403):
        upload(dora, repo, b"by dora\n")
    publisher.grant(repo, "dora", "write")
    upload(dora, repo, b"by dora\n")
    assert dora.api.list_repo_commits(repo)[0].authors == ["dora"]
    dora.api.create_branch(repo, branch="dev")
    for change in (
        lambda: dora.api.update_repo_settings(repo, private=False),
        lambda: dora.api.move_repo(repo, f"{repo}-moved"),
        lambda: dora.api.delete_repo(repo),
    ):
        with refused(403):
            change()
    publisher.grant(repo, "dora", "manage")
    dora.api.update_repo_settings(repo, private=False)
    assert not ada.api.repo_info(repo).private
    dora.api.update_repo_settings(repo, private=True)
    publisher.grant(repo, "dora", "none")
    with hidden():
        upload(dora, repo)
    with hidden():
        dora.api.delete_repo(repo)
    assert contents(ada, repo) == {"a.txt": b"by dora\n"}


def test_outsiders_do_not_write_to_what_they_see(
    ada: Account, bob: Account, nobody: Account, public: str
) -> None:
    for outsider, status in ((bob, 403), (nobody, 401)):
        for change in (
            lambda api=outsider.api: api.upload_file(
                path_or_fileobj=b"x\n", path_in_repo="x.txt", repo_id=public
            ),
            lambda api=outsider.api: api.create_branch(public, branch="dev"),
            lambda api=outsider.api: api.delete_repo(public),
        ):
            with refused(status):
                change()
    assert contents(ada, public) == {"a.txt": b"public\n"}


def test_auth_check_says_how_far_one_may_go(
    ada: Account, bob: Account, public: str, private: str
) -> None:
    ada.api.auth_check(private)
    ada.api.auth_check(private, write=True)
    bob.api.auth_check(public)
    with refused(403):
        bob.api.auth_check(public, write=True)
    with hidden():
        bob.api.auth_check(private)


# --- private repositories ---------------------------------------------------------------------


def questions(name: str, kind: str) -> Iterator[tuple[str, str, bytes | None, str]]:
    """Every way to ask for a repository: method, target, body, and the body's type."""
    owner, short = name.split("/")
    prefix = "" if kind == "model" else f"{kind}s/"
    api, page = f"/api/{kind}s/{name}", f"/{prefix}{name}"
    lines = '{"key":"header","value":{"summary":"x"}}\n{"key":"deletedFile","value":{"path":"a.txt"}}\n'
    objects = [{"oid": "0" * 64, "size": 1}]
    whole = {"name": short, "organization": owner, "type": kind}
    for target in (
        *(api, f"{api}?expand=sha", f"{api}/revision/main", f"{api}/revision/absent"),
        *(f"{api}/tree/main", f"{api}/tree/main/a.txt?recursive=true", f"{api}/treesize/main"),
        *(f"{api}/refs", f"{api}/commits/main", f"{api}/auth-check", f"{api}/auth-check/write"),
        *(f"{api}/compare/main..main", f"{api}/compare/main...absent"),
        *(f"{api}/xet-read-token/main", f"{api}/xet-write-token/main", f"{api}/lfs-files"),
        *(f"{api}/discussions", f"{api}/safetensors-metadata/a.txt", f"{api}/nonsense"),
        *(page, f"{page}/resolve/main/a.txt", f"{page}/raw/main/a.txt", f"{page}/tree/main"),
        *(f"{page}/resolve/main/absent", f"{page}/commits/main", f"{page}/blob/main/a.txt"),
        *(f"{page}/info/refs?service=git-upload-pack", f"{page}.git/info/refs?service=git-receive-pack"),
    ):
        yield "GET", target, None, ""
    yield "HEAD", f"{page}/resolve/main/a.txt", None, ""
    for method, target, body in (
        ("POST", f"{api}/paths-info/main", {"paths": ["a.txt"]}),
        ("POST", f"{api}/preupload/main", {"files": [{"path": "a.txt", "sample": "", "size": 1}]}),
        ("PUT", f"{api}/settings", {"visibility": "public"}),
        ("POST", f"{api}/branch/dev", {}),
        ("DELETE", f"{api}/branch/main", {}),
        ("POST", f"{api}/tag/main", {"tag": "v1"}),
        ("DELETE", f"{api}/tag/v1", {}),
        ("POST", f"{api}/super-squash/main", {"message": "x"}),
        ("POST", f"{api}/duplicate", {"repository": "bob/copy"}),
        ("POST", "/api/repos/create", whole | {"sdk": "static"}),
        ("DELETE", "/api/repos/delete", whole),
        ("POST", "/api/repos/move", {"fromRepo": name, "toRepo": f"{owner}/other", "type": kind}),
        ("POST", f"{page}.git/info/lfs/objects/batch", {"operation": "upload", "objects": objects}),
        ("POST", f"{page}.git/info/lfs/objects/batch", {"operation": "download", "objects": objects}),
    ):
        yield method, target, json.dumps(body).encode(), "application/json"
    yield "POST", f"{api}/commit/main", lines.encode(), "application/x-ndjson"


def seen(answer: Answer, name: str) -> tuple[int, dict[str, str], bytes]:
    """All that an answer tells, with the repository's name left out."""
    headers = {
        key.lower(): value.replace(name, "?")
        for key, value in answer.headers.items()
        if key.lower() not in OWN_HEADERS
    }
    return answer.status, headers, answer.body.replace(name.encode(), b"?")


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
@pytest.mark.parametrize("outsider", ["bob", "nobody", "wrong", "limited"])
def test_a_private_repository_looks_like_none(
    publisher: Publisher, ada: Account, bob: Account, outsider: str, kind: str
) -> None:
    private = publisher.repo(ada, kind, private=True, **({"space_sdk": "static"} if kind == "space" else {}))
    upload(ada, private, repo_type=kind)
    # Of the same length: answers that repeat the name are as long.
    absent = private.replace(kind, "nones"[: len(kind)].ljust(len(kind), "x"))
    token = {
        "bob": bob.token,
        "nobody": None,
        "wrong": "hf_thisTokenIsOfAnotherHub",
        # Of the owner, for something else.
        "limited": publisher.token(ada.name, repos=[publisher.repo(ada)]),
    }[outsider]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    differences = []
    for ours, theirs in zip(questions(private, kind), questions(absent, kind), strict=True):
        answers = []
        for name, (method, target, body, content_type) in ((private, ours), (absent, theirs)):
            more = {"Content_Type": content_type} if content_type else {}
            answers.append(seen(request(publisher.url, target, method, body, **headers, **more), name))
        assert answers[0][0] >= 400, ours
        if answers[0] != answers[1]:
            differences.append((ours[:2], answers))
    assert not differences
    assert contents(ada, private, kind) == {"a.txt": b"a\n"}


def test_hidden_repositories_are_gone_for_others_and_come_back(
    publisher: Publisher, ada: Account, bob: Account, nobody: Account
) -> None:
    repo = publisher.repo(ada)
    commit = upload(ada, repo)
    ada.api.create_branch(repo, branch="dev")
    ada.api.create_tag(repo, tag="v1")
    for others in (bob, nobody):
        assert contents(others, repo) == {"a.txt": b"a\n"}
    ada.api.update_repo_settings(repo, private=True)
    # Its name is no key to it, and its commit's id is none.
    url = f"{publisher.url}/{repo}/resolve/{commit}/a.txt"
    for others in (bob, nobody):
        with hidden():
            others.api.repo_info(repo)
        with hidden():
            others.api.get_hf_file_metadata(url=url)
    info = ada.api.repo_info(repo)
    assert (info.id, info.private) == (repo, True)
    assert contents(ada, repo, revision="v1") == {"a.txt": b"a\n"}
    later = upload(ada, repo, b"later\n")
    ada.api.update_repo_settings(repo, private=False)
    for reader in (ada, bob, nobody):
        assert reader.api.repo_info(repo).sha == later
        assert contents(reader, repo, revision="dev") == {"a.txt": b"a\n"}
        assert contents(reader, repo) == {"a.txt": b"later\n"}


def test_lists_show_private_repositories_only_to_those_who_read_them(
    publisher: Publisher, ada: Account, bob: Account, nobody: Account
) -> None:
    card = b"---\ntags:\n- hidden-gem\nlicense: mit\n---\n"
    made = {}
    for kind in ("model", "dataset", "space"):
        options = {"space_sdk": "static"} if kind == "space" else {}
        made[kind] = publisher.repo(ada, kind, private=True, **options)
        ada.api.upload_file(
            path_or_fileobj=card, path_in_repo="README.md", repo_id=made[kind], repo_type=kind
        )
    for account, sees in ((ada, True), (bob, False), (nobody, False)):
        for kind, repo in made.items():
            listing = getattr(account.api, f"list_{kind}s")
            for query in (
                {},
                {"author": ada.name},
                {"search": repo.split("/")[1]},
                {"filter": "hidden-gem"},
                {"full": True},
            ):
                assert (repo in {item.id for item in listing(**query)}) == sees, (kind, query)
