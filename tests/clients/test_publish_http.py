"""Publishing over plain HTTP: what preupload decides, lines of a commit, LFS in one piece and in parts."""

import base64
import json
import random
import re
from pathlib import Path

import pytest
from cairn import Node
from http_client import Answer, request
from pointers import blob_oid, sha256
from publisher import Account, Publisher, contents, entry, hidden, titles

LFS = "application/vnd.git-lfs+json"
MULTIPART_BYTES_MIN = 256 << 20


class Writer:
    """One repository, asked as an account over plain HTTP."""

    def __init__(self, publisher: Publisher, account: Account, repo: str) -> None:
        self.url = publisher.url
        self.account = account
        self.repo = repo

    def post(self, target: str, body: bytes, content_type: str = "application/json") -> Answer:
        return request(
            *(self.url, target, "POST", body),
            Authorization=f"Bearer {self.account.token}",
            Content_Type=content_type,
        )

    def preupload(self, files: list[dict], revision: str = "main", **more: str) -> Answer:
        for file in files:
            file["sample"] = base64.b64encode(file.pop("content", b"")[:512]).decode()
        body = json.dumps({"files": files} | more).encode()
        return self.post(f"/api/models/{self.repo}/preupload/{revision}", body)

    def commit(self, *lines: tuple[str, dict], end: str = "\n") -> Answer:
        header = {"key": "header", "value": {"summary": "By hand", "description": ""}}
        all_lines = [header, *({"key": key, "value": value} for key, value in lines)]
        body = "\n".join(json.dumps(line) for line in all_lines) + end
        return self.post(f"/api/models/{self.repo}/commit/main", body.encode(), "application/x-ndjson")

    def batch(self, *contents: tuple[str, int], hash_algo: str = "sha256", transfers=("basic", "multipart")):
        """What is to be done with each of these objects."""
        objects = [{"oid": oid, "size": size} for oid, size in contents]
        body = {"operation": "upload", "transfers": transfers, "objects": objects, "hash_algo": hash_algo}
        answer = self.post(f"/{self.repo}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS)
        assert answer.status == 200, answer.body
        assert answer["Content-Type"].startswith(LFS)
        return json.loads(answer.body)["objects"]

    def link(self, url: str, method: str, body: bytes) -> Answer:
        """Follows a link of a batch answer, as clients do: without the token."""
        assert url.startswith(self.url + "/")
        return request(self.url, url.removeprefix(self.url), method, body)


@pytest.fixture
def writer(publisher: Publisher, ada: Account) -> Writer:
    return Writer(publisher, ada, publisher.repo(ada))


def inline(path: str, content: bytes) -> tuple[str, dict]:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


# --- preupload --------------------------------------------------------------------------------


def test_preupload_decides_by_name_sample_and_size(writer: Writer) -> None:
    text, binary = b"plain text\n", b"\0\1\2\3"
    cases = {
        "a.txt": (text, 11, "regular"),
        "weights.safetensors": (text, 11, "lfs"),
        "deep/er/model.bin": (text, 11, "lfs"),
        "saved_model/x/y": (text, 11, "lfs"),
        "no-pattern.xyz": (binary, 4, "lfs"),
        "größe mit leer.txt": (text, 11, "regular"),
        "long.txt": (text, 9 << 20, "regular"),
        "longer.txt": (text, (10 << 20) + 1, "lfs"),
        "README.md": (b"# x\n", 4, "regular"),
    }
    files = [{"path": path, "size": size, "content": content} for path, (content, size, _) in cases.items()]
    answer = writer.preupload(files).json()
    assert answer["files"] == [
        {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
        for path, (_, _, mode) in cases.items()
    ]
    assert answer["commitOid"] == writer.account.api.repo_info(writer.repo).sha


def test_preupload_tells_what_stands_there_now(writer: Writer) -> None:
    regular, large = b"regular\n", b"\0large"
    oid = sha256(large)
    (action,) = writer.batch((oid, len(large)))
    assert writer.link(action["actions"]["upload"]["href"], "PUT", large).status == 200
    lines = [inline("a.txt", regular), ("lfsFile", {"path": "b.bin", "algo": "sha256", "oid": oid, "size": 6})]
    assert writer.commit(*lines).status == 200
    files = [{"path": path, "size": 6} for path in ("a.txt", "b.bin", "c.txt")]
    answer = writer.preupload(files).json()["files"]
    assert [file["oid"] for file in answer] == [blob_oid(regular), oid, None]


def test_preupload_ignores_and_attributes_as_it_is_told(writer: Writer) -> None:
    ask = lambda **more: {  # noqa: E731
        file["path"]: (file["uploadMode"], file["shouldIgnore"])
        for file in writer.preupload(
            [{"path": path, "size": 5, "content": b"text\n"} for path in ("a.log", "out/b.txt", "c.txt")],
            **more,
        ).json()["files"]
    }
    assert set(ask().values()) == {("regular", False)}
    assert ask(gitIgnore="*.log\nout/\n") == {
        "a.log": ("regular", True),
        "out/b.txt": ("regular", True),
        "c.txt": ("regular", False),
    }
    assert ask(gitAttributes="c.* filter=lfs\n")["c.txt"] == ("lfs", False)
    # What is committed counts where nothing is told, and only there.
    writer.commit(inline(".gitignore", b"*.txt\n"))
    assert [ignored for _, ignored in ask().values()] == [False, True, True]
    assert [ignored for _, ignored in ask(gitIgnore="").values()] == [False, False, False]


def test_preupload_refuses_what_a_commit_would(writer: Writer) -> None:
    for path in ("..\\ddd", "../up", "a//b", "/root", ".git/config", ""):
        answer = writer.preupload([{"path": path, "size": 1}])
        assert (answer.status, bool(answer.json()["error"])) == (422, True), path
    answer = writer.preupload([{"path": "a.txt", "size": 1}], "absent")
    assert (answer.status, answer["X-Error-Code"]) == (404, "RevisionNotFound")


# --- lines of a commit ------------------------------------------------------------------------


def test_lines_of_other_clients(writer: Writer) -> None:
    """Text as it is, renames, copies, a folder with a slash, no newline at the end."""
    large = b"\0large one"
    oid = sha256(large)
    (action,) = writer.batch((oid, len(large)), hash_algo="sha_256")
    assert writer.link(action["actions"]["upload"]["href"], "PUT", large).status == 200
    begin = writer.commit(
        ("file", {"path": "a.txt", "content": "größe\n", "encoding": "utf-8"}),
        ("lfsFile", {"path": "b.bin", "algo": "sha256", "oid": oid, "size": len(large)}),
        inline("folder/x.txt", b"x\n"),
        inline("folder/y/z.txt", b"z\n"),
        end="",
    )
    assert begin.status == 200
    made = begin.json()
    assert (made["success"], made["hookOutput"]) == (True, "")
    assert made["commitUrl"] == f"{writer.url}/{writer.repo}/commit/{made['commitOid']}"
    change = writer.commit(
        ("file", {"path": "renamed.txt", "oldPath": "a.txt"}),
        ("lfsFile", {"path": "renamed.bin", "oldPath": "b.bin"}),
        # A copy on the server has no size.
        ("lfsFile", {"path": "copy.bin", "algo": "sha256", "oid": oid}),
        ("deletedFolder", {"path": "folder/"}),
    )
    assert change.status == 200
    assert contents(writer.account, writer.repo) == {
        "renamed.txt": "größe\n".encode(),
        "renamed.bin": large,
        "copy.bin": large,
    }


def test_commits_that_are_none(writer: Writer) -> None:
    before = titles(writer.account, writer.repo)
    target = f"/api/models/{writer.repo}/commit/main"
    file = '{"key":"file","value":{"path":"a.txt","content":"YQ=="}}'
    header = '{"key":"header","value":{"summary":"x"}}'
    for body in (
        *("", "\n", file, header, "not json", f"{header}\nnot json", f"{header}\n{header}\n{file}"),
        *('{"key":"header","value":{"summary":""}}\n' + file, f'{header}\n{{"key":"unknown","value":{{}}}}'),
        header + '\n{"key":"file","value":{"path":"a.txt","content":"no base64!"}}',
        header + '\n{"key":"file","value":{"path":"a.txt","content":"YQ==","encoding":"rot13"}}',
        header + '\n{"key":"file","value":{"path":"a.txt"}}',
    ):
        answer = writer.post(target, body.encode(), "application/x-ndjson")
        assert (answer.status, bool(answer.json()["error"])) == (400, True), body
    assert titles(writer.account, writer.repo) == before


# --- LFS --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("upload_path")
def test_an_object_that_nobody_sent_is_not_committed(
    publisher: Publisher, ada: Account, bob: Account, writer: Writer
) -> None:
    secret = b"\0only in a private repository of another"
    private = Writer(publisher, ada, publisher.repo(ada, private=True))
    ada.api.upload_file(path_or_fileobj=secret, path_in_repo="s.bin", repo_id=private.repo)
    outsider = Writer(publisher, bob, publisher.repo(bob))
    for oid, size in ((sha256(b"nothing"), 7), (sha256(secret), len(secret))):
        # To know a hash is not to have the content: it is to be sent, and nothing can be made of it before.
        (asked,) = outsider.batch((oid, size))
        assert "upload" in asked["actions"]
        line = ("lfsFile", {"path": "x.bin", "algo": "sha256", "oid": oid, "size": size})
        answer = outsider.commit(line)
        assert (answer.status, oid in answer.json()["error"]) == (400, True)
    (known,) = private.batch((sha256(secret), len(secret)))
    assert "actions" not in known
    assert contents(bob, outsider.repo) == {}


def test_a_link_is_good_for_its_own_object_alone(writer: Writer) -> None:
    content = b"\0exactly these bytes"
    oid, other = sha256(content), sha256(b"others")
    (action,) = writer.batch((oid, len(content)))
    href = action["actions"]["upload"]["href"]
    for url, body, status in (
        (href, b"\0exactly other bytes", 400),
        (href, content + b"more", 400),
        (href.replace(oid, other), content, 403),
        (href.replace(f"size={len(content)}", "size=6"), b"others", 403),
        (href.split("?")[0], content, 403),
    ):
        assert writer.link(url, "PUT", body).status == status, url
    assert "actions" in writer.batch((oid, len(content)))[0]
    assert writer.link(href, "GET", b"").status == 405
    # As often as one likes.
    assert [writer.link(href, "PUT", content).status for _ in range(2)] == [200, 200]
    assert "actions" not in writer.batch((oid, len(content)))[0]


def test_objects_that_can_not_be(writer: Writer) -> None:
    for oid in ("", "abc", "g" * 64):
        body = json.dumps({"operation": "upload", "objects": [{"oid": oid, "size": 1}]})
        answer = writer.post(f"/{writer.repo}.git/info/lfs/objects/batch", body.encode(), LFS)
        assert answer.status == 422
    (huge,) = writer.batch(("0" * 64, 1 << 60))
    assert (huge["error"]["code"], "actions" in huge) == (422, False)


@pytest.fixture
def large(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file that is sent in parts: mostly a hole, with noise of this test in each part."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for at in range(0, MULTIPART_BYTES_MIN + 1, 32 << 20):
            file.seek(at)
            file.write(random.Random(f"{request.node.name} {at}").randbytes(1_000))
    return path


def test_a_large_file_goes_up_in_parts_and_again_from_where_it_stopped(
    writer: Writer, large: Path
) -> None:
    content = large.read_bytes()
    oid = sha256(content)
    (asked,) = writer.batch((oid, len(content)))
    upload = asked["actions"]["upload"]
    chunk = int(upload["header"]["chunk_size"])
    links = [upload["header"][key] for key in sorted(upload["header"]) if key != "chunk_size"]
    parts = [content[at : at + chunk] for at in range(0, len(content), chunk)]
    assert len(links) == len(parts) > 1

    def complete(etags: list[str]) -> Answer:
        told = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
        return writer.link(upload["href"], "POST", json.dumps({"oid": oid, "parts": told}).encode())

    etags = []
    for link, part in list(zip(links, parts, strict=True))[:-1]:
        answer = writer.link(link, "PUT", part)
        assert answer.status == 200
        assert answer["ETag"]
        etags.append(answer["ETag"])
    # One is missing, one of another length is refused: nothing is whole yet.
    assert 400 <= complete(etags).status < 500
    assert writer.link(links[-1], "PUT", parts[-1] + b"more").status == 400
    assert "actions" in writer.batch((oid, len(content)))[0]
    # The parts that were sent need not be sent again.
    last = writer.link(links[-1], "PUT", parts[-1])
    assert last.status == 200
    assert [complete([*etags, last["ETag"]]).status for _ in range(2)] == [200, 200]
    assert "actions" not in writer.batch((oid, len(content)))[0]
    line = ("lfsFile", {"path": "large.bin", "algo": "sha256", "oid": oid, "size": len(content)})
    assert writer.commit(line).status == 200
    assert contents(writer.account, writer.repo) == {"large.bin": content}


def test_parts_of_another_content_make_nothing(writer: Writer) -> None:
    """All parts have the right length, and the whole has not the promised hash."""
    size = MULTIPART_BYTES_MIN
    oid = sha256(b"something else")
    (asked,) = writer.batch((oid, size))
    upload = asked["actions"]["upload"]
    chunk = int(upload["header"]["chunk_size"])
    for key in sorted(upload["header"]):
        if key != "chunk_size":
            assert writer.link(upload["header"][key], "PUT", bytes(chunk)).status == 200
    assert writer.link(upload["href"], "POST", json.dumps({"oid": oid, "parts": []}).encode()).status == 400
    assert "actions" in writer.batch((oid, size))[0]


def test_clients_that_know_no_parts_send_one_piece(writer: Writer) -> None:
    (asked,) = writer.batch((sha256(b"any"), MULTIPART_BYTES_MIN), transfers=["basic"])
    assert "chunk_size" not in asked["actions"]["upload"].get("header", {})


@pytest.mark.usefixtures("upload_path")
def test_huggingface_hub_sends_a_large_file(publisher: Publisher, ada: Account, large: Path) -> None:
    repo = publisher.repo(ada)
    ada.api.upload_file(path_or_fileobj=large, path_in_repo="large.bin", repo_id=repo)
    found = entry(ada, repo, "large.bin")
    content = large.read_bytes()
    assert (found.size, found.lfs.sha256) == (len(content), sha256(content))
    assert contents(ada, repo) == {"large.bin": content}


# --- a restart --------------------------------------------------------------------------------


def test_accounts_repositories_and_links_outlive_a_restart(lone_node: Node, large: Path) -> None:
    before = Publisher(lone_node.start())
    eve = before.account("eve")
    writer = Writer(before, eve, before.repo(eve, private=True))
    assert writer.commit(inline("a.txt", b"a\n")).status == 200
    content = large.read_bytes()
    oid = sha256(content)
    (asked,) = writer.batch((oid, len(content)))
    upload = asked["actions"]["upload"]
    chunk = int(upload["header"]["chunk_size"])
    links = [upload["header"][key] for key in sorted(upload["header"]) if key != "chunk_size"]
    for link, at in zip(links[:-1], range(0, len(content), chunk)):
        assert writer.link(link, "PUT", content[at : at + chunk]).status == 200
    assert lone_node.stop() == 0

    after = Publisher(lone_node.start())
    eve = after.as_token(eve.token, "eve")
    writer = Writer(after, eve, writer.repo)
    moved = lambda link: link.replace(before.url, after.url)  # noqa: E731
    with hidden():
        after.as_token(None).api.repo_info(writer.repo)
    # What was sent before need not be sent again.
    assert writer.link(moved(links[-1]), "PUT", content[chunk * (len(links) - 1) :]).status == 200
    assert writer.link(moved(upload["href"]), "POST", b"{}").status == 200
    line = ("lfsFile", {"path": "large.bin", "algo": "sha256", "oid": oid, "size": len(content)})
    assert writer.commit(line).status == 200
    assert contents(eve, writer.repo) == {"a.txt": b"a\n", "large.bin": content}


def test_the_first_start_makes_an_administrator_and_prints_the_token_once(lone_node: Node) -> None:
    eve = Publisher(lone_node.start()).account("eve")
    assert lone_node.stop() == 0
    again = Publisher(lone_node.start())
    (token,) = re.findall(r"^token +(\S+) \(of owner; shown this once\)$", lone_node.log.read_text(), re.M)
    owner, eve = again.as_token(token, "owner"), again.as_token(eve.token, "eve")
    assert owner.api.whoami()["name"] == "owner"
    private = again.repo(eve, private=True)
    assert owner.api.repo_info(private).private
    make = {"target": "/api/settings/users", "method": "POST", "body": b'{"name":"finn"}'}
    for account, status in ((eve, 403), (owner, 200)):
        authorization = f"Bearer {account.token}"
        answer = request(again.url, **make, Authorization=authorization, Content_Type="application/json")
        assert answer.status == status
    users = lone_node.run("admin", "user", "list")["users"]
    assert {user["name"] for user in users} == {"owner", "eve", "finn"}
