"""Publishing through the hub's API: large files beside nginx's DAV module, and commits by the second."""

import base64
import json
import os
import subprocess
import threading
import time
from pathlib import Path

from cairn import Cairn, status_bytes
from measure import GB, GIB, MIB, Missing, check, cpu_seconds, fill, median, settle, sized, spread

from peers import Nginx

# Uploads a folder with the hub's own client, and says what of it the client spent on hashing.
UPLOAD = """
import hashlib, json, sys, time
from huggingface_hub import HfApi
from huggingface_hub.utils import sha
began = time.monotonic()
hashed = 0.0
inner = sha.sha_fileobj
def counted(*arguments, **options):
    global hashed
    start = time.monotonic()
    try:
        return inner(*arguments, **options)
    finally:
        hashed += time.monotonic() - start
sha.sha_fileobj = counted
import huggingface_hub.lfs as lfs
if hasattr(lfs, "sha_fileobj"):
    lfs.sha_fileobj = counted
HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2], commit_message="bench")
print(json.dumps({"seconds": time.monotonic() - began, "hashing": hashed}))
"""


class Hub:
    """A node and its owner's token; use as a context."""

    def __init__(self, folder: Path):
        self.cairn = Cairn(folder / "data")

    def __enter__(self):
        self.gateway = self.cairn.up()
        made = self.cairn.json("admin", "token", "create", "--user", "owner", "--scope", "write")
        self.token = made["token"]
        self.pid = self.cairn.process.pid
        return self

    def __exit__(self, *_):
        self.cairn.close()

    def create(self, name: str):
        self.post("/api/repos/create", json.dumps({"name": name}).encode())

    def post(self, path: str, body: bytes, connection=None) -> dict:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/x-ndjson"}
        answer = self.gateway.request("POST", path, headers, body, connection)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {answer.body!r}")
        return answer.json()

    def commit(self, name: str, files: dict, connection=None):
        lines = [{"key": "header", "value": {"summary": "bench"}}]
        for path, content in files.items():
            content = base64.b64encode(content).decode()
            lines.append({"key": "file", "value": {"path": path, "content": content}})
        body = "\n".join(json.dumps(line) for line in lines).encode()
        self.post(f"/api/models/owner/{name}/commit/main", body, connection)


def client_python() -> str:
    """A Python with the hub's client, as `tests/run` installs one."""
    python = os.environ.get("CAIRN_TEST_PYTHON")
    if not python:
        raise Missing("CAIRN_TEST_PYTHON names no Python with huggingface_hub")
    return python


def run_large(bench, folder):
    """A large file through LFS and through Xet, beside `curl -T` of it to nginx."""
    size = bench.size(2 * GIB, 8 * MIB)
    source = folder / "source"
    source.mkdir()
    (folder / "dav").mkdir()
    python = client_python()
    rates = {"lfs": [], "xet": [], "nginx": []}
    costs, shares = {"lfs": [], "xet": []}, []
    with Hub(folder) as hub, Nginx(bench, folder, folder / "dav", dav=True) as nginx:
        start = status_bytes(hub.pid, "VmHWM")
        for number in range(bench.rounds):
            for name in ("nginx", "lfs", "xet"):
                # Other bytes each time: what is stored already is not sent again.
                file = source / "model.safetensors"
                fill(file, size)
                settle(2 * size, folder)
                if name == "nginx":
                    url = f"http://{nginx.host}:{nginx.port}/{number}.bin"
                    began = time.monotonic()
                    check([bench.tool("curl"), "-sfT", str(file), url])
                    rates[name].append(size / (time.monotonic() - began))
                    (folder / "dav" / f"{number}.bin").unlink()
                    continue
                repo = f"owner/{name}{number}"
                hub.create(repo)
                cpu = cpu_seconds(hub.pid)
                got = upload(hub, python, repo, source, folder, xet=name == "xet")
                costs[name].append((cpu_seconds(hub.pid) - cpu) / (size / GB))
                rates[name].append(size / got["seconds"])
                if name == "lfs":
                    shares.append(got["hashing"] / got["seconds"])
        peak = status_bytes(hub.pid, "VmHWM") / MIB
    for name, values in rates.items():
        cost = f", {spread(costs[name])} CPU s/GB of the server" if name in costs else ""
        bench.say(f"{name:<6} {sized(size)}: {spread([v / MIB for v in values], '{:.0f}')} MiB/s{cost}")
    bench.say(f"of the LFS upload's time the client hashes for {spread(shares)}")
    bench.say(f"memory: {start / MIB:.0f} MiB after the start")
    ratio = median(rates["lfs"]) / median(rates["nginx"])
    bench.at_least(f"upload of {sized(size)} as LFS / nginx DAV", ratio, 0.6)
    bench.at_most("memory while files are uploaded", peak, 300, " MiB")


def upload(hub, python, repo, source, folder, xet: bool) -> dict:
    environment = dict(os.environ) | {
        "HF_ENDPOINT": hub.gateway.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
    }
    done = subprocess.run(
        [python, "-c", UPLOAD, repo, str(source)], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_commits(bench, folder):
    """Commits: of many small files, by the second into one repository and over many, on a large tree."""
    count = bench.size(1_000, 20)
    with Hub(folder) as hub:
        hub.create("many")
        files = {f"d{i % 10}/f{i}.json": b"%d" % i * 500 for i in range(count)}
        began = time.monotonic()
        hub.commit("many", files)
        bench.at_most(f"a commit of {count} small files", time.monotonic() - began, 3, " s")

        seconds = bench.size(10, 1)
        for name, repos in (("one repository", 1), ("16 repositories", 16)):
            names = [f"r{repos}-{i}" for i in range(repos)]
            for repo in names:
                hub.create(repo)
            rate = commits_a_second(hub, names, writers=16, seconds=seconds)
            bench.at_least(f"commits a second into {name}", rate, 200)

        # Folders of a hundred, as large repositories have them.
        hub.create("small")
        hub.create("large")
        hub.commit("small", {f"f{i}": b"%d" % i for i in range(10)})
        total = bench.size(100_000, 500)
        for part in range(0, total, 10_000):
            batch = range(part, min(part + 10_000, total))
            hub.commit("large", {f"a{i // 10_000}/b{i // 100 % 100}/f{i}": b"%d" % i for i in batch})
        took = {"small": [], "large": []}
        for number in range(bench.size(50, 3)):
            for name in took:
                began = time.monotonic()
                hub.commit(name, {"a0/b0/new": b"%d" % number})
                took[name].append(time.monotonic() - began)
        for name, values in took.items():
            bench.say(f"{name}: {spread([value * 1000 for value in values])} ms a commit")
        ratio = median(took["large"]) / median(took["small"])
        bench.at_most(f"commit on {total} files / on 10", ratio, 2)
        bench.at_most("memory while commits are made", status_bytes(hub.pid, "VmHWM") / MIB, 300, " MiB")


def commits_a_second(hub, names, writers: int, seconds: float) -> float:
    """How many commits of one small file are acknowledged."""
    end = time.monotonic() + seconds
    counts, errors = [0] * writers, []

    def write(writer):
        connection = hub.gateway.connect()
        try:
            while time.monotonic() < end:
                content = b"%d %d" % (writer, counts[writer])
                hub.commit(names[writer % len(names)], {f"w{writer}": content}, connection)
                counts[writer] += 1
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.monotonic() - began)
