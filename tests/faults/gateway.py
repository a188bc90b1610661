"""An independent client of the gateway, which hashes what it gets."""

import hashlib
import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

READ_BYTES = 1 << 20


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Download:
    """A response whose body was hashed and thrown away."""

    status: int
    headers: http.client.HTTPMessage
    sha256: str
    size: int
    start: bytes


class Gateway:
    """A gateway by its URL; each request has a connection of its own unless one is given."""

    def __init__(self, url: str):
        self.url = url
        parts = urlsplit(url)
        self.host = parts.hostname
        self.port = parts.port

    def connect(self, seconds=30) -> http.client.HTTPConnection:
        """A connection that can be kept."""
        return http.client.HTTPConnection(self.host, self.port, timeout=seconds)

    def request(self, method, path, headers=None, body=None, connection=None) -> Answer:
        """Sends a request and reads the whole answer."""
        used = connection or self.connect()
        try:
            used.request(method, path, body=body, headers=headers or {})
            response = used.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            if connection is None:
                used.close()

    def get(self, path, headers=None, connection=None) -> Answer:
        """GET."""
        return self.request("GET", path, headers, connection=connection)

    def json(self, path):
        """The JSON of a GET that must be answered with 200."""
        answer = self.get(path)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body[:300]!r}"
        return answer.json()

    def download(self, path, headers=None) -> Download:
        """GET whose body is hashed as it comes; raises IncompleteRead on a short one."""
        connection = self.connect(seconds=120)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            digest, size, start = hashlib.sha256(), 0, b""
            while piece := response.read(READ_BYTES):
                start = start or piece[:4096]
                digest.update(piece)
                size += len(piece)
            length = response.headers.get("Content-Length")
            if length is not None and int(length) != size:
                raise http.client.IncompleteRead(start, int(length) - size)
            return Download(response.status, response.headers, digest.hexdigest(), size, start)
        finally:
            connection.close()

    # The hub's interface.

    def listed(self, prefix="models") -> list:
        """Ids of all repositories of a kind, over all pages."""
        return [item["id"] for item in self.pages(f"/api/{prefix}?limit=100")]

    def tree(self, repo: str, revision: str, prefix="models") -> list:
        """All entries of a revision, over all pages."""
        return self.pages(f"/api/{prefix}/{repo}/tree/{quote(revision, safe='')}?recursive=true")

    def absent(self, repo: str, prefix="models") -> bool:
        """Whether the gateway says that there is no such repository (401 to whoever has no account)."""
        answer = self.get(f"/api/{prefix}/{repo}")
        return answer.status in (401, 404) and answer.headers["X-Error-Code"] == "RepoNotFound"

    def commits(self, repo: str, revision="main", prefix="models") -> list:
        """Ids of a revision's commits, newest first, over all pages."""
        path = f"/api/{prefix}/{repo}/commits/{quote(revision, safe='')}"
        return [commit["id"] for commit in self.pages(path)]

    def pages(self, path: str) -> list:
        """A list that is spread over pages by `Link` headers."""
        items = []
        while path:
            answer = self.get(path)
            assert answer.status == 200, f"GET {path}: {answer.status} {answer.body[:300]!r}"
            items += answer.json()
            link = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link", ""))
            path = None
            if link:
                parts = urlsplit(link.group(1))
                path = f"{parts.path}?{parts.query}"
        return items

    def file_path(self, repo: str, revision: str, path: str, prefix="") -> str:
        """The resolve path of a file."""
        return f"/{prefix}{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def file(self, repo: str, revision: str, path: str, prefix="") -> Download:
        """Downloads and hashes a file."""
        return self.download(self.file_path(repo, revision, path, prefix))
