"""A gateway with a certificate of a private authority: clients over HTTPS, a renewal, and who asks without TLS."""

import http.client
import json
import random
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cairn import CommandFailed, Node
from http_client import TIMEOUT_SECONDS, request
from pointers import sha256
from publisher import Account, Publisher
from samples import write

# The files are looked at every five seconds, and read at the second look that finds them changed.
RENEWAL_SECONDS = 60


def openssl(*arguments: str | Path) -> None:
    """Makes a certificate and its key."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-days", "2", *arguments], check=True, capture_output=True
    )


def certify(folder: Path) -> str:
    """Puts a new certificate for loopback and its key into a folder, which then has an authority, too."""
    root, root_key = folder / "root.pem", folder / "root-key.pem"
    if not root.exists():
        openssl("-subj", "/CN=Test Authority", "-keyout", root_key, "-out", root)
    # One that may sign others is no server's certificate to hf_xet.
    extensions = ("subjectAltName=IP:127.0.0.1,DNS:localhost", "basicConstraints=critical,CA:FALSE")
    openssl(
        *("-CA", root, "-CAkey", root_key, "-subj", "/CN=localhost"),
        *(argument for extension in extensions for argument in ("-addext", extension)),
        *("-keyout", folder / "new-key.pem", "-out", folder / "new-certificate.pem"),
    )
    for name in ("key.pem", "certificate.pem"):
        (folder / f"new-{name}").rename(folder / name)
    return (folder / "certificate.pem").read_text()


def shown(url: str) -> str:
    """The certificate that a new connection is shown."""
    root = urlsplit(url)
    return ssl.get_server_certificate((root.hostname, root.port), timeout=TIMEOUT_SECONDS)


def get(node: Node, path: str) -> http.client.HTTPResponse:
    """Asks over TLS, and trusts the node's authority alone."""
    context = ssl.create_default_context(cafile=str(node.root / "root.pem"))
    return urllib.request.urlopen(node.url + path, timeout=TIMEOUT_SECONDS, context=context)


@pytest.fixture
def tls_node(lone_node: Node) -> Iterator[Node]:
    """A node that answers all of this machine's addresses over TLS, and ends well."""
    lone_node.root.mkdir(parents=True)
    certify(lone_node.root)
    # From the settings file's folder, wherever the node is started.
    lone_node.settings = 'tls_certificate = "certificate.pem"\ntls_key = "key.pem"\n'
    lone_node.gateway = "0.0.0.0:0"
    yield lone_node.start()
    assert lone_node.stop() == 0


@pytest.fixture
def cleo(tls_node: Node, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account there, whose clients trust its authority: httpx and hf_xet both read this variable."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_node.root / "root.pem"))
    return Publisher(tls_node).account("cleo")


def test_clients_publish_and_fetch(
    tls_node: Node, cleo: Account, upload_path: str, tmp_path: Path
) -> None:
    publisher = Publisher(tls_node)
    noise = random.Random(0).randbytes(20_000_000)
    files = {"README.md": b"# Here\n", "notes.txt": b"a line\n" * 10_000, "weights.bin": noise}
    folder = write(tmp_path / "folder", files)
    repo = publisher.fresh_name(cleo)
    # A process of its own: the library keeps its connections, and what they trust, for the whole session.
    sent = publisher.hf("upload", repo, folder, ".", "--private", home=tmp_path / "home", account=cleo)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert f"{tls_node.url}/{repo}" in sent.stdout + sent.stderr
    fetched = tmp_path / "fetched"
    got = publisher.hf("download", repo, "--local-dir", fetched, home=tmp_path / "new-home", account=cleo)
    assert got.returncode == 0, got.stdout + got.stderr
    for path, content in files.items():
        assert sha256((fetched / path).read_bytes()) == sha256(content), path


def test_status_shows_https_and_no_warning(tls_node: Node) -> None:
    status = tls_node.run("status")
    assert status["gateway_url"] == tls_node.url
    assert tls_node.url.startswith("https://127.0.0.1:")
    assert status["plain_http"] is False
    assert tls_node.run("doctor")["ok"] is True
    assert "plain HTTP" not in tls_node.log.read_text()


def test_links_are_https(tls_node: Node, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tls_node.push(write(tmp_path / name, {"a.txt": b"a\n"}), name)
    with get(tls_node, "/api/models?limit=1") as answer:
        assert len(json.load(answer)) == 1
        assert answer.headers["Link"].startswith(f"<{tls_node.url}/api/models?")


def test_plain_http_is_closed_without_harm(tls_node: Node) -> None:
    plain = tls_node.url.replace("https://", "http://")
    for _ in range(3):
        with pytest.raises((http.client.HTTPException, OSError)):
            request(plain, "/healthz")
    with get(tls_node, "/healthz") as answer:
        assert json.load(answer)["status"] == "ok"


def test_a_renewed_certificate_is_shown_without_a_restart(tls_node: Node) -> None:
    first = shown(tls_node.url)
    assert first == (tls_node.root / "certificate.pem").read_text()
    new = certify(tls_node.root)
    deadline = time.monotonic() + RENEWAL_SECONDS
    while shown(tls_node.url) != new:
        assert time.monotonic() < deadline, tls_node.log.read_text()
        time.sleep(0.1)
    with get(tls_node, "/healthz") as answer:
        assert answer.status == 200


def test_a_key_of_another_certificate_stops_the_start(lone_node: Node, tmp_path: Path) -> None:
    lone_node.root.mkdir(parents=True)
    certify(lone_node.root)
    certify(tmp_path)
    lone_node.flags = (
        *("--tls-certificate", str(lone_node.root / "certificate.pem")),
        *("--tls-key", str(tmp_path / "key.pem")),
    )
    with pytest.raises(CommandFailed, match="ended with 2") as failed:
        lone_node.start()
    told = failed.value.args[0]
    assert f"the private key in {tmp_path}/key.pem is not that of the first certificate in" in told
    assert "hint: " in told
