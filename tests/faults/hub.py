"""Publishing over the hub's API: by plain HTTP, which knows exactly what was acknowledged, and by the hub's
own clients, in Python and in JavaScript; and the bytes that this takes on the wire.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from cairn import Cairn
from folders import file_sha256
from gateway import Answer, Gateway

CLIENT = Path(__file__).with_name("hub_client.py")
JS_CLIENT = Path(__file__).with_name("hub_client.mjs")
# Long enough for a whole large file to be hashed by a busy machine.
ANSWER_SECONDS = 120
MEDIA = {name: "application/vnd.git-lfs+json" for name in ("Accept", "Content-Type")}


class Refused(Exception):
    """An answer that is not of success."""

    def __init__(self, what: str, answer: Answer):
        super().__init__(f"{what}: {answer.status} {answer.body[:500]!r}")
        self.status = answer.status
        self.answer = answer


@dataclass(frozen=True)
class Account:
    """Whoever publishes."""

    name: str
    # By which other nodes know the account.
    namespace: str
    token: str


def account(node: Cairn, name: str) -> Account:
    """Makes an account with a token for everything that it may."""
    made = node.json("admin", "user", "create", name)
    token = node.json("admin", "token", "create", "--user", name, "--scope", "write")["token"]
    return Account(name, made["namespace"], token)


class Hub:
    """A gateway, as an account publishes to it by plain HTTP; each request has a connection of its own."""

    def __init__(self, gateway: Gateway, who: Account):
        self.gateway = gateway
        self.who = who

    def request(self, method: str, path: str, body=None, headers=None, allowed=(200,)) -> Answer:
        """Sends a request as the account; raises `Refused` unless it is answered as allowed."""
        headers = {"Authorization": f"Bearer {self.who.token}"} | (headers or {})
        return self._sent(method, path, body, headers, allowed)

    def json(self, method: str, path: str, value=None, headers=None):
        """The JSON that a request with a JSON body is answered with."""
        body = None if value is None else json.dumps(value).encode()
        headers = {"Content-Type": "application/json"} | (headers or {})
        return self.request(method, path, body, headers).json()

    def _sent(self, method, path, body, headers, allowed) -> Answer:
        connection = self.gateway.connect(ANSWER_SECONDS)
        connection.blocksize = 1 << 20
        try:
            connection.connect()
            # Who is refused in the middle of a body hears why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        if answer.status not in allowed:
            raise Refused(f"{method} {path.partition('?')[0]}", answer)
        return answer

    def create(self, name: str, kind="model", private=False) -> str:
        """Makes a repository; returns its id."""
        wanted = {"name": name, "type": kind, "private": private}
        return self.json("POST", "/api/repos/create", wanted)["name"]

    def head(self, repo: str, plural="models") -> str:
        """The commit that a repository stands at."""
        return self.json("GET", f"/api/{plural}/{repo}")["sha"]

    def commit(self, repo: str, lines: list, revision="main", parent=None, plural="models") -> str:
        """Commits operations (`("file", {…})`, …); returns the acknowledged commit."""
        header = {"summary": f"{len(lines)} operations", "description": ""}
        if parent is not None:
            header["parentCommit"] = parent
        all_lines = [("header", header), *lines]
        body = b"".join(
            json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in all_lines
        )
        path = f"/api/{plural}/{repo}/commit/{quote(revision, safe='')}"
        headers = {"Content-Type": "application/x-ndjson"}
        return self.request("POST", path, body, headers).json()["commitOid"]

    def asked(self, repo: str, source: Path, prefix=""):
        """Asks how a file is to be sent as LFS does: the action, or nothing where it is there already."""
        wanted = {
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": file_sha256(source), "size": source.stat().st_size}],
            "hash_algo": "sha256",
        }
        path = f"/{prefix}{repo}.git/info/lfs/objects/batch"
        (told,) = self.json("POST", path, wanted, MEDIA)["objects"]
        assert "error" not in told, told
        return told.get("actions", {}).get("upload")

    def upload(self, repo: str, source: Path, prefix="") -> bool:
        """Sends a file as LFS does, in one piece or in parts; whether it had to be sent."""
        action = self.asked(repo, source, prefix)
        if action is None:
            return False
        parts = part_urls(action)
        if not parts:
            with open(source, "rb") as file:
                self._send(action["href"], file, source.stat().st_size)
            return True
        length = int(action["header"]["chunk_size"])
        sent = []
        with open(source, "rb") as file:
            for number, url in parts:
                part = file.read(length)
                etag = self._send(url, part, len(part)).headers["ETag"]
                sent.append({"partNumber": number, "etag": etag})
        body = json.dumps({"oid": file_sha256(source), "parts": sent}).encode()
        self._sent("POST", _path(action["href"]), body, MEDIA, (200,))
        return True

    def begin(self, url: str, begin: bytes, size: int) -> http.client.HTTPConnection:
        """Sends the beginning of a body of so many bytes; on the connection the rest is awaited."""
        connection = self.gateway.connect(ANSWER_SECONDS)
        connection.putrequest("PUT", _path(url))
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        connection.send(begin)
        return connection

    def _send(self, url: str, body, size: int) -> Answer:
        # Without the token, as clients do.
        return self._sent("PUT", _path(url), body, {"Content-Length": str(size)}, (200,))


def part_urls(action: dict) -> list:
    """Where each part of a file goes, with its number; nothing for one that goes in one piece."""
    header = action.get("header", {})
    return sorted((int(name), url) for name, url in header.items() if name.isdigit())


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def inline(path: str, content: bytes) -> tuple:
    """A line of a commit that has the file's bytes."""
    text = base64.b64encode(content).decode()
    return "file", {"path": path, "content": text, "encoding": "base64"}


def lfs(path: str, source: Path) -> tuple:
    """A line of a commit that names an uploaded file."""
    size = source.stat().st_size
    return "lfsFile", {"path": path, "algo": "sha256", "oid": file_sha256(source), "size": size}


class ClientProcess:
    """A client in a process of its own, which takes calls by lines of JSON; use as a context."""

    def __init__(self, command: list, environment: dict, home: Path):
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "client.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def answer(self, method: str, **arguments) -> dict:
        """Calls a method: `{"result"}` or `{"error", "status"}`; `OSError` once it is killed."""
        self.process.stdin.write(json.dumps([method, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ConnectionError(f"the client ended: {self.log.read_text()[-2_000:]}")
        return json.loads(line)

    def call(self, method: str, **arguments):
        """The result of a call that must succeed."""
        answer = self.answer(method, **arguments)
        assert "result" in answer, f"{method} {arguments}: {answer['error']}"
        return answer["result"]

    def kill(self):
        """Ends the client, whatever it does."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class JsClient(ClientProcess):
    """`@huggingface/hub`; `call` takes its functions' parameters (`files` and `operations`: see the script)."""

    def __init__(self, url: str, who: Account, home: Path):
        modules = Path(os.environ.get("CAIRN_TEST_NODE", ""), "node_modules", "@huggingface", "hub")
        assert modules.is_dir(), "CAIRN_TEST_NODE names no folder that has @huggingface/hub; tests/run makes one"
        super().__init__(["node", str(JS_CLIENT), url, who.token], dict(os.environ), home)


class Client(ClientProcess):
    """`huggingface_hub`, with caches of its own; `call` takes the methods of `HfApi`."""

    def __init__(self, url: str, who: Account, home: Path, xet=True):
        nowhere = "http://127.0.0.1:9"
        environment = os.environ | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "" if xet else "1",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            environment.pop(name, None)
        super().__init__([sys.executable, "-B", str(CLIENT), url, who.token], environment, home)

    def commit(self, repo: str, *operations, kind="model", **more) -> str:
        """Commits operations (see `hub_client.operation`); returns the acknowledged commit."""
        answer = self.commit_answer(repo, *operations, kind=kind, **more)
        assert "result" in answer, f"a commit to {repo}: {answer['error']}"
        return answer["result"]

    def commit_answer(self, repo: str, *operations, kind="model", **more) -> dict:
        """What a commit is answered with (see `answer`)."""
        return self.answer(
            "create_commit",
            repo_id=repo,
            repo_type=kind,
            operations=operations,
            commit_message=f"{len(operations)} operations",
            **more,
        )


class Wire:
    """A port in front of a gateway, which counts the bytes that clients send; use as a context."""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway
        self.sent = 0
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # Wakes whoever waits for a connection, which closing alone does not.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def taken(self) -> int:
        """Bytes that clients sent since this was last asked."""
        with self._lock:
            sent, self.sent = self.sent, 0
        return sent

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                node = socket.create_connection((self.gateway.host, self.gateway.port))
                for pair in ((client, node, True), (node, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_counted: bool):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 18):
                if is_counted:
                    with self._lock:
                        self.sent += len(piece)
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def requests(gateway: Gateway, family: str) -> int:
    """How many requests of a family a gateway has answered since it was started."""
    text = gateway.get("/metrics").body.decode()
    found = re.findall(rf'requests_total\{{family="{family}",status="\w+"\}} (\d+)', text)
    return sum(map(int, found))


def server_errors(gateway: Gateway) -> dict:
    """How many answers of each 5xx a gateway has given since it was started."""
    text = gateway.get("/metrics").body.decode()
    found = re.findall(r'requests_total\{family="(\w+)",status="(5\d\d)"\} (\d+)', text)
    return {f"{family} {status}": int(count) for family, status, count in found if int(count)}
