"""Files over plain HTTP: the headers that clients read, ranges, conditions, dispositions."""

import gzip
import re
import zlib
from urllib.parse import unquote

import pytest
from cairn import Published
from http_client import request, resolve
from pointers import blob_oid, pointer, sha256
from samples import Samples

LFS = "model.safetensors"
REGULAR = "config.json"

EXPOSED = {
    *("x-repo-commit", "x-request-id", "x-error-code", "x-error-message", "x-total-count"),
    *("etag", "link", "accept-ranges", "content-range", "x-linked-size", "x-linked-etag"),
    "x-xet-hash",
}


def etag_of(published: Published, name: str) -> str:
    content = published.files()[name]
    return sha256(content) if name == LFS else blob_oid(content)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("name", [REGULAR, LFS])
def test_the_headers_that_clients_read(
    url: str, tiny_bert: Published, name: str, method: str
) -> None:
    content = tiny_bert.files()[name]
    answer = request(url, resolve(tiny_bert, name), method, Accept_Encoding="identity")
    assert answer.status == 200
    assert answer["X-Repo-Commit"] == tiny_bert.commit
    assert answer["ETag"] == f'"{etag_of(tiny_bert, name)}"'
    assert answer["X-Linked-Etag"] == f'"{etag_of(tiny_bert, name)}"'
    assert answer["X-Linked-Size"] == str(len(content))
    assert answer["Content-Length"] == str(len(content))
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["X-Request-Id"]
    assert answer["X-Xet-Hash"] is None
    assert answer["Content-Encoding"] is None
    assert answer["Content-Disposition"].startswith("inline;")
    assert f"filename*=UTF-8''{name}" in answer["Content-Disposition"]
    assert answer.body == (b"" if method == "HEAD" else content)


def test_a_head_never_promises_an_encoding(url: str, tiny_bert: Published) -> None:
    answer = request(url, resolve(tiny_bert, REGULAR), "HEAD", Accept_Encoding="gzip, deflate, br")
    assert answer["Content-Encoding"] is None
    assert answer["Content-Length"] == str(len(tiny_bert.files()[REGULAR]))


def test_an_encoded_body_says_so(url: str, tiny_bert: Published) -> None:
    answer = request(url, resolve(tiny_bert, REGULAR), Accept_Encoding="gzip, deflate")
    decode = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}
    assert decode[answer["Content-Encoding"]](answer.body) == tiny_bert.files()[REGULAR]


def test_browsers_may_read_the_headers(url: str, tiny_bert: Published) -> None:
    answer = request(url, resolve(tiny_bert, REGULAR), Origin="https://app.example")
    assert answer["Access-Control-Allow-Origin"] in ("*", "https://app.example")
    exposed = answer["Access-Control-Expose-Headers"].lower().replace(" ", "").split(",")
    assert set(exposed) >= EXPOSED


@pytest.mark.parametrize("name", ["größe/日本語/Ελληνικά.txt", "it's (1), @home!~.txt", "c++.txt"])
def test_a_disposition_carries_any_name(url: str, odd: Published, name: str) -> None:
    answer = request(url, resolve(odd, name), "HEAD")
    encoded = answer["Content-Disposition"].split("filename*=UTF-8''")[1].split(";")[0]
    assert unquote(encoded) == name.rsplit("/", 1)[-1]
    assert answer["Content-Disposition"].isascii()


def test_a_download_is_an_attachment(url: str, tiny_bert: Published) -> None:
    target = resolve(tiny_bert, LFS)
    answer = request(url, f"{target}?download=true")
    assert answer["Content-Disposition"].startswith("attachment;")
    assert answer.body == tiny_bert.files()[LFS]
    other = request(url, f"{target}?noContentDisposition=1&unknown=%00x")
    assert (other.status, other.body) == (200, tiny_bert.files()[LFS])


def test_a_published_page_is_no_page_of_the_gateway(url: str, samples: Samples) -> None:
    # Shown as text: what somebody published must not run as script in the gateway's name.
    answer = request(url, resolve(samples.space, "page.html"))
    assert answer.status == 200
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert not re.search("html|xml|javascript", answer["Content-Type"])


@pytest.mark.parametrize("name", [REGULAR, LFS])
def test_a_known_etag_is_not_sent_again(url: str, tiny_bert: Published, name: str) -> None:
    target, etag = resolve(tiny_bert, name), etag_of(tiny_bert, name)
    for method in ("GET", "HEAD"):
        for known in (f'"{etag}"', f'W/"{etag}"', f'"other", "{etag}"', "*"):
            answer = request(url, target, method, If_None_Match=known)
            assert (answer.status, answer.body) == (304, b""), known
            assert answer["ETag"] == f'"{etag}"'
            assert answer["X-Repo-Commit"] == tiny_bert.commit
    answer = request(url, target, If_None_Match='"other"')
    assert (answer.status, answer.body) == (200, tiny_bert.files()[name])


@pytest.mark.parametrize("name", [REGULAR, LFS])
def test_ranges(url: str, tiny_bert: Published, name: str) -> None:
    content = tiny_bert.files()[name]
    size = len(content)
    target = resolve(tiny_bert, name)
    for asked, begin, end in (
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=7-20", 7, 20),
        ("bytes=100-", 100, size - 1),
        ("bytes=-5", size - 5, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
        (f"bytes={size - 1}-", size - 1, size - 1),
        # Longer than the file: what there is, never an error.
        (f"bytes=0-{size + 100_000}", 0, size - 1),
        (f"bytes=10-{2**63}", 10, size - 1),
    ):
        answer = request(url, target, Range=asked)
        assert answer.status == 206, asked
        assert answer["Content-Range"] == f"bytes {begin}-{end}/{size}", asked
        assert answer["Content-Length"] == str(end - begin + 1), asked
        assert answer.body == content[begin : end + 1], asked
        assert answer["ETag"] == f'"{etag_of(tiny_bert, name)}"'
        assert answer["X-Repo-Commit"] == tiny_bert.commit


def test_ranges_of_a_large_file(url: str, samples: Samples) -> None:
    content = samples.minilm.files()["model.safetensors"]
    target = resolve(samples.minilm, "model.safetensors")
    for begin, end in ((0, 2**20), (2**20 - 1, 2**20), (45_000_000, 47_000_000)):
        answer = request(url, target, Range=f"bytes={begin}-{end}")
        assert answer.status == 206
        assert answer.body == content[begin : end + 1]


@pytest.mark.parametrize("name", [REGULAR, LFS])
def test_a_range_behind_the_end_cannot_be_had(url: str, tiny_bert: Published, name: str) -> None:
    size = len(tiny_bert.files()[name])
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = request(url, resolve(tiny_bert, name), Range=asked)
        assert answer.status == 416, asked
        assert answer["Content-Range"] == f"bytes */{size}"
        assert answer["X-Error-Message"]


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=", "bytes=a-b", "lines=1-2", "bytes=--1", "5-9"])
def test_a_range_that_is_none_gets_the_whole_or_an_error(
    url: str, tiny_bert: Published, asked: str
) -> None:
    answer = request(url, resolve(tiny_bert, REGULAR), Range=asked)
    assert answer.status in (200, 416)
    if answer.status == 200:
        assert answer.body == tiny_bert.files()[REGULAR]


def test_several_ranges_get_the_whole_or_parts(url: str, tiny_bert: Published) -> None:
    answer = request(url, resolve(tiny_bert, REGULAR), Range="bytes=0-1,5-9")
    if answer.status == 206:
        assert answer["Content-Type"].startswith("multipart/byteranges")
    else:
        assert (answer.status, answer.body) == (200, tiny_bert.files()[REGULAR])


def test_a_range_holds_only_for_the_etag_it_was_meant_for(
    url: str, tiny_bert: Published
) -> None:
    target, content = resolve(tiny_bert, LFS), tiny_bert.files()[LFS]
    etag = etag_of(tiny_bert, LFS)
    same = request(url, target, Range="bytes=3-9", If_Range=f'"{etag}"')
    assert (same.status, same.body) == (206, content[3:10])
    other = request(url, target, Range="bytes=3-9", If_Range='"other"')
    assert (other.status, other.body) == (200, content)


def test_an_empty_file(url: str, odd: Published) -> None:
    target = resolve(odd, "empty.txt")
    answer = request(url, target)
    assert (answer.status, answer.body, answer["Content-Length"]) == (200, b"", "0")
    assert answer["ETag"] == f'"{blob_oid(b"")}"'
    first = request(url, target, Range="bytes=0-0")
    assert first.status in (200, 206)
    assert first["Content-Range"].endswith("/0")


def test_raw_is_what_git_stores(url: str, tiny_bert: Published) -> None:
    files = tiny_bert.files()
    regular = request(url, resolve(tiny_bert, REGULAR, route="raw"))
    assert (regular.status, regular.body) == (200, files[REGULAR])
    lfs = request(url, resolve(tiny_bert, LFS, route="raw"))
    assert (lfs.status, lfs.body) == (200, pointer(files[LFS]))
    assert lfs["Content-Length"] == str(len(pointer(files[LFS])))


def test_every_odd_name_has_its_url(url: str, odd: Published) -> None:
    for name, content in odd.files().items():
        answer = request(url, resolve(odd, name))
        assert (answer.status, answer.body) == (200, content), name


@pytest.mark.parametrize(
    "revision",
    ["main", "dev", "feature/one", "v1.0", "refs/heads/feature/one", "refs/tags/v1.0", "HEAD"],
)
def test_percent_encoded_revisions(
    url: str, branches: dict[str, Published], revision: str
) -> None:
    name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
    published = branches["main" if name == "HEAD" else name]
    answer = request(url, resolve(published, "value.txt", revision))
    assert (answer.status, answer.body) == (200, published.files()["value.txt"])
    assert answer["X-Repo-Commit"] == published.commit


def test_a_commit_by_its_digits(url: str, branches: dict[str, Published]) -> None:
    first = branches["first"]
    for digits in (40, 12, 7):
        answer = request(url, resolve(first, "value.txt", first.commit[:digits]))
        assert (answer.status, answer["X-Repo-Commit"]) == (200, first.commit)
        assert answer.body == b"first"


@pytest.mark.parametrize(
    "path",
    [
        *("../config.json", "..%2f..%2fconfig.json", "%2e%2e/config.json", "./config.json"),
        *("config.json/", "config.json/x", "config.json%00", "%ff%fe", "%2Fetc%2Fpasswd"),
    ],
)
def test_paths_that_are_none_lead_nowhere(url: str, tiny_bert: Published, path: str) -> None:
    answer = request(url, f"/{tiny_bert.repo}/resolve/main/{path}")
    assert answer.status in (400, 404)
    assert b"model_type" not in answer.body
    assert b"root:" not in answer.body


def test_doubled_slashes_of_an_endpoint_with_one_at_its_end(url: str, samples: Samples) -> None:
    answer = request(url, "/" + resolve(samples.csv, "test.csv"))
    if answer.status in (301, 302, 307, 308):
        answer = request(url, answer["Location"].removeprefix(url))
    assert (answer.status, answer.body) == (200, samples.csv.files()["test.csv"])
