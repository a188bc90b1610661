"""The API over plain HTTP: error headers, pages, spellings of other clients."""

import json
import re
from urllib.parse import quote, urlencode

import pytest
from cairn import Node, Published
from http_client import Answer, api, follow, request, resolve
from samples import HISTORY_COMMITS, WIDE_FLAT_FILES, Samples

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def assert_error(answer: Answer, status: int, code: str | None, message: str | None = None) -> None:
    """An error as clients read it: code and text in headers, and the text in a JSON object."""
    assert answer.status == status
    assert answer["X-Error-Code"] == code
    assert answer["X-Error-Message"]
    assert answer["X-Request-Id"]
    assert answer.json()["error"] == answer["X-Error-Message"]
    if message is not None:
        assert answer["X-Error-Message"] == message


def test_a_missing_repository(url: str, node: Node) -> None:
    for target in (
        *("/api/models/nobody/nothing", "/api/models/nobody/nothing/tree/main"),
        *(f"/api/datasets/{node.namespace}/nothing/refs", "/api/spaces/nobody/nothing/commits/main"),
        *("/nobody/nothing/resolve/main/x", "/datasets/nobody/nothing/resolve/main/x"),
        *("/nobody/nothing/raw/main/x", "/api/models/no-such-bare-name"),
    ):
        answer = request(url, target)
        # 401 is what the hub tells strangers, 404 what it tells members; the code counts.
        assert answer.status in (401, 404)
        assert_error(answer, answer.status, "RepoNotFound")
    head = request(url, "/nobody/nothing/resolve/main/x", "HEAD")
    assert (head["X-Error-Code"], head.body) == ("RepoNotFound", b"")


def test_a_missing_revision(url: str, branches: dict[str, Published]) -> None:
    repo = branches["main"]
    for target in (
        *(resolve(repo, "value.txt", "absent"), resolve(repo, "value.txt", "absent", route="raw")),
        *(api(repo, "revision", "absent"), api(repo, "tree", "absent"), api(repo, "commits", "absent")),
    ):
        assert_error(request(url, target), 404, "RevisionNotFound", "Invalid rev id: absent")
    info = request(
        url, api(repo, "paths-info", "absent"), "POST", b'{"paths":[]}', Content_Type="application/json"
    )
    assert_error(info, 404, "RevisionNotFound", "Invalid rev id: absent")


def test_a_missing_entry_names_the_commit(url: str, branches: dict[str, Published]) -> None:
    repo = branches["main"]
    for method in ("GET", "HEAD"):
        answer = request(url, resolve(repo, "nothing.txt"), method)
        assert (answer.status, answer["X-Error-Code"]) == (404, "EntryNotFound")
        assert answer["X-Repo-Commit"] == repo.commit
    assert_error(request(url, resolve(repo, "nothing.txt")), 404, "EntryNotFound")
    assert_error(request(url, api(repo, "tree", "main", "nothing")), 404, "EntryNotFound")
    assert_error(request(url, api(repo, "tree", "main", "value.txt")), 404, "EntryNotFound")


def test_an_unknown_expand(url: str, tiny_bert: Published) -> None:
    answer = request(url, f"{api(tiny_bert)}?expand=nonsense")
    assert answer.status == 400
    assert "lastModified" in answer.json()["error"]


def test_expand_in_both_spellings(url: str, tiny_bert: Published) -> None:
    for query in ("expand=likes&expand=sha", "expand[]=likes&expand[]=sha", "expand%5B%5D=likes&expand=sha"):
        found = request(url, f"{api(tiny_bert)}?{query}").json()
        assert set(found) == {"_id", "id", "likes", "sha"}
        assert found["sha"] == tiny_bert.commit


def test_head_is_a_revision(url: str, tiny_bert: Published) -> None:
    found = request(url, f"{api(tiny_bert, 'revision', 'HEAD')}?expand=sha").json()
    assert found["sha"] == tiny_bert.commit


def test_dates_end_with_z(url: str, samples: Samples) -> None:
    info = request(url, api(samples.csv)).json()
    assert DATE.fullmatch(info["lastModified"])
    assert DATE.fullmatch(info["createdAt"])
    (commit,) = request(url, api(samples.csv, "commits", "main")).json()
    assert DATE.fullmatch(commit["date"])
    for entry in request(url, f"{api(samples.csv, 'tree', 'main')}?expand=true").json():
        assert DATE.fullmatch(entry["lastCommit"]["date"])


@pytest.mark.parametrize("query", ["recursive=true", "recursive=true&expand=true", "recursive=1&limit=400"])
def test_trees_come_in_pages(url: str, samples: Samples, query: str) -> None:
    pages = follow(url, f"{api(samples.wide, 'tree', 'main', 'flat')}?{query}")
    assert len(pages) > 1
    paths = [entry["path"] for page in pages for entry in page.json()]
    assert paths == [f"flat/{at:05}.txt" for at in range(WIDE_FLAT_FILES)]
    assert all(("lastCommit" in e) == ("expand" in query) for e in pages[-1].json())


def test_a_tree_of_a_folder_in_either_spelling(url: str, samples: Samples) -> None:
    for path in ("nested/03", "nested%2F03"):
        entries = request(url, f"{api(samples.wide, 'tree', 'main')}/{path}").json()
        assert sorted(e["path"] for e in entries) == [f"nested/03/{at}.txt" for at in range(5)]


def test_revisions_in_several_segments(url: str, branches: dict[str, Published]) -> None:
    main, slashed = branches["main"], branches["feature/one"]
    for route, published in (
        ("tree/feature/one", slashed),
        ("tree/refs/heads/feature/one", slashed),
        ("tree/refs/heads/main/added", main),
        ("tree/refs/heads/main", main),
    ):
        entries = request(url, f"{api(main)}/{route}?recursive=true").json()
        names = {e["path"] for e in entries if e["type"] == "file"}
        if route.endswith("/added"):
            assert names == {"added/later.txt"}
        else:
            assert names == {*published.files(), ".gitattributes"}
    commits = request(url, f"{api(main)}/commits/feature/one?limit=5").json()
    assert [c["id"] for c in commits] == [slashed.commit, branches["first"].commit]


def test_commits_come_in_pages(url: str, samples: Samples) -> None:
    repo = samples.history[0]
    expected = [p.commit for p in reversed(samples.history)]
    for query in ("", "?limit=7", "?limit=7&expand[]=formatted"):
        pages = follow(url, api(repo, "commits", "main") + query)
        assert len(pages) == (2 if not query else -(-HISTORY_COMMITS // 7))
        commits = [commit for page in pages for commit in page.json()]
        assert [c["id"] for c in commits] == expected
        assert all(("formatted" in c) == ("formatted" in query) for c in commits)
        assert {page["X-Total-Count"] for page in pages} == {str(HISTORY_COMMITS)}
    second = request(url, api(repo, "commits", "main") + "?limit=10&p=1").json()
    assert [c["id"] for c in second] == expected[10:20]


@pytest.mark.parametrize("expand", [True, False])
def test_paths_info_in_both_encodings(url: str, samples: Samples, expand: bool) -> None:
    repo, paths = samples.odd, ["deep", "c++.txt", "größe/日本語/Ελληνικά.txt", "nothing"]
    target = api(repo, "paths-info", "main")
    form = urlencode([("paths", p) for p in paths] + [("expand", str(expand).lower())]).encode()
    body = json.dumps({"paths": paths, "expand": expand}).encode()
    by_form = request(url, target, "POST", form, Content_Type="application/x-www-form-urlencoded")
    by_json = request(url, target, "POST", body, Content_Type="application/json")
    assert by_form.json() == by_json.json()
    assert [e["path"] for e in by_form.json()] == paths[:3]
    assert all(("lastCommit" in e) == expand for e in by_form.json())


def test_bodies_that_are_none_are_refused(url: str, tiny_bert: Published) -> None:
    target = api(tiny_bert, "paths-info", "main")
    for body in (b"{", b"[]", b'{"paths": 3}', b"\xff\xfe"):
        answer = request(url, target, "POST", body, Content_Type="application/json")
        assert 400 <= answer.status < 500, body
        assert isinstance(answer.json(), dict)


def test_queries_that_are_none_are_refused_or_ignored(url: str, tiny_bert: Published) -> None:
    for target in (
        *(f"{api(tiny_bert, 'tree', 'main')}?cursor=%ff%00nonsense", "/api/models?limit=minus"),
        *("/api/models?cursor=nonsense", f"{api(tiny_bert, 'commits', 'main')}?p=-1&limit=0"),
        *("/api/models?limit=99999999999999999999", "/api/models?" + "filter=x&" * 2_000),
    ):
        answer = request(url, target)
        assert answer.status < 500, target[:80]
        assert isinstance(answer.json(), dict if answer.status >= 400 else list)


def test_an_unknown_route_is_a_json_error(url: str, tiny_bert: Published) -> None:
    for target in ("/api/nothing", f"{api(tiny_bert)}/nothing/at/all", f"/{tiny_bert.repo}/resolve"):
        answer = request(url, target)
        assert answer.status == 404
        assert answer.json()["error"]


def test_a_method_that_a_route_does_not_have(url: str, tiny_bert: Published) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        answer = request(url, resolve(tiny_bert, "config.json"), method)
        assert answer.status in (404, 405)
    assert request(url, resolve(tiny_bert, "config.json")).status == 200


def test_calls_of_clients_that_expect_no_answer(url: str) -> None:
    assert request(url, "/api/telemetry/examples/x", "HEAD").status < 500
    assert request(url, "/api/agent-harnesses").status < 500


def test_every_answer_has_a_request_id(url: str, tiny_bert: Published) -> None:
    ids = {
        request(url, target)["X-Request-Id"]
        for target in (api(tiny_bert), api(tiny_bert), "/api/models", "/nothing", "/api/models/x/y")
    }
    assert None not in ids
    assert len(ids) == 5


def test_links_name_the_host_that_was_asked(url: str, samples: Samples) -> None:
    target = f"{api(samples.wide, 'tree', 'main')}?recursive=true"
    answer = request(url, target, Host="models.example:8080")
    assert answer.next_link.startswith("http://models.example:8080/api/datasets/")


def test_a_listing_follows_a_push(url: str, node: Node, tmp_path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    target = f"/api/models?{urlencode({'search': 'fresh-model'})}"
    assert request(url, target).json() == []
    first = node.push(tmp_path, "fresh-model")
    assert [m["id"] for m in request(url, target).json()] == [first.repo]
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    second = node.push(tmp_path, "fresh-model")
    assert second.commit != first.commit
    info = request(url, api(second)).json()
    assert info["sha"] == second.commit
    assert "license:apache-2.0" in info["tags"]
    body = request(url, resolve(second, "README.md")).body
    assert body == b"---\nlicense: apache-2.0\n---\n"
    old = request(url, resolve(second, "README.md", first.commit))
    assert old.body == b"---\nlicense: mit\n---\n"


def test_health_and_metrics(url: str, tiny_bert: Published) -> None:
    assert request(url, resolve(tiny_bert, "config.json")).status == 200
    assert request(url, "/healthz").status == 200
    metrics = request(url, "/metrics")
    assert metrics.status == 200
    assert metrics["Content-Type"].startswith("text/plain")
    lines = [line for line in metrics.body.decode().splitlines() if line]
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    assert all(re.fullmatch(r"[a-zA-Z_:][\w:]*(\{.*\})? \S+", line) for line in samples)


def test_a_quoted_namespace_is_the_same_name(url: str, tiny_bert: Published) -> None:
    namespace, name = tiny_bert.repo.split("/")
    target = f"/api/models/{namespace}/{quote(name, safe='').replace('-', '%2D')}"
    assert request(url, target).json()["sha"] == tiny_bert.commit
