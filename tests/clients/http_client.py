"""HTTP as it is written: no client library that quotes, follows, decodes or retries."""

import http.client
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from cairn import Published

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        """A header, whatever its case."""
        return self.headers.get(name)

    def json(self) -> Any:
        assert (self["Content-Type"] or "").startswith("application/json"), self["Content-Type"]
        return json.loads(self.body)

    @property
    def next_link(self) -> str | None:
        """The URL of the next page, by the strict reading of the JavaScript client."""
        if (link := self["Link"]) is None:
            return None
        found = re.fullmatch(r'<(https?://[^>]+)>;\s+rel="next"', link)
        assert found, f"not a link that every client reads: {link}"
        return found[1]


def request(
    url: str, target: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> Answer:
    """Sends one request with the target verbatim; header names are given with `_` for `-`."""
    root = urlsplit(url)
    connection = http.client.HTTPConnection(root.hostname, root.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.putrequest(
            method, target, skip_accept_encoding=True, skip_host="Host" in headers
        )
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def follow(url: str, target: str) -> list[Answer]:
    """All pages that an answer and its links lead to."""
    pages = [request(url, target)]
    while (link := pages[-1].next_link) is not None:
        assert link.startswith(url + "/"), "a link leads away from the gateway"
        assert len(pages) < 10_000, "links lead round in a circle"
        pages.append(request(url, link.removeprefix(url)))
    return pages


def resolve(published: Published, path: str, revision: str = "main", route: str = "resolve") -> str:
    """The target of a file, quoted as the Python client quotes it."""
    return f"/{published.prefix}{published.repo}/{route}/{quote(revision, safe='')}/{quote(path)}"


def api(published: Published, *parts: str) -> str:
    """The target below a repository's API, each part quoted as one segment."""
    quoted = "".join(f"/{quote(part, safe='')}" for part in parts)
    return f"/api/{published.kind}s/{published.repo}{quoted}"
