"""Rebuilding all views of a node that has 100,000 commits.

The commits are made through the control socket, many at once, since starting a process for each would
take an hour; where memory allows, in a folder in memory, which is then copied to the disk: what is
measured is the rebuild, not the making.
"""

import json
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

from cairn import Cairn
from measure import GIB, median, require, settle, spread, timed

REPOSITORIES = 100
WRITERS = 16
IN_MEMORY = Path("/dev/shm")
IN_MEMORY_BYTES_MIN = 6 * GIB


def run(bench, folder):
    commits = bench.size(100_000, 200)
    repositories = bench.size(REPOSITORIES, 10)
    cairn = Cairn(folder / "data")
    start = time.monotonic()
    make(cairn, folder, commits, repositories)
    bench.say(
        f"made {commits} commits in {repositories} repositories in {time.monotonic() - start:.0f} s"
    )
    gateway = cairn.up()
    before = answers(gateway, repositories, commits)
    require(cairn.stop(60) == 0, "the node did not end well")
    bench.say(
        f"data folder: {tree_bytes(cairn.data) / 1e6:.0f} MB, views {tree_bytes(cairn.data / 'views') / 1e6:.0f} MB"
    )
    by_doctor, by_start = [], []
    for _ in range(min(bench.rounds, 3)):
        settle()
        by_doctor.append(timed(lambda: cairn.json("doctor", "--rebuild", seconds=600)))
        shutil.rmtree(cairn.data / "views")
        settle()
        by_start.append(timed(lambda: cairn.up(seconds=600)))
        require(
            answers(cairn.gateway, repositories, commits) == before,
            "another answer after a rebuild",
        )
        require(cairn.stop(60) == 0, "the node did not end well")
    bench.say(f"doctor --rebuild: {spread(by_doctor)} s; start without views: {spread(by_start)} s")
    bench.at_most(
        f"rebuild of all views, {commits} commits",
        max(median(by_doctor), median(by_start)),
        30,
        " s",
    )


def make(cairn, folder, commits: int, repositories: int):
    """Fills the data folder with repositories of equally many commits."""
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= IN_MEMORY_BYTES_MIN
    place = Path(tempfile.mkdtemp(prefix="cairn-bench-", dir=IN_MEMORY if roomy else folder))
    try:
        maker = Cairn(place / "data")
        maker.up()
        todo = list(range(repositories))
        lock, wrong = threading.Lock(), []

        def write():
            try:
                while not wrong:
                    with lock:
                        if not todo:
                            return
                        number = todo.pop()
                    fill_repository(
                        maker.data, place / f"source-{number}", number, commits // repositories
                    )
            except Exception as error:
                wrong.append(error)

        writers = [threading.Thread(target=write) for _ in range(min(WRITERS, repositories))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        ended = maker.stop(60)
        if wrong:
            raise wrong[0]
        require(ended == 0, "the node did not end well")
        shutil.copytree(maker.data, cairn.data, copy_function=shutil.copy)
        (cairn.data / "keys").chmod(0o700)
    finally:
        maker.close()
        shutil.rmtree(place, ignore_errors=True)


def fill_repository(data: Path, source: Path, number: int, commits: int):
    """Pushes a folder of one small file again and again, each time with other content."""
    source.mkdir()
    for turn in range(commits):
        (source / "config.json").write_text(json.dumps({"repository": number, "turn": turn}))
        ask(
            data,
            {
                "verb": "push",
                "dir": str(source),
                "repo": f"model-{number:04}",
                "kind": "model",
                "reference": "main",
                "message": f"turn {turn}",
            },
        )


def ask(data: Path, request: dict):
    """One request over the control socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        connection.connect(str(data / "control.sock"))
        connection.sendall(json.dumps(request).encode() + b"\n")
        for line in connection.makefile("rb"):
            answer = json.loads(line)
            if "ok" in answer:
                return answer["ok"]
            if "error" in answer:
                raise RuntimeError(f"{request}: {answer['error']}")
    raise RuntimeError("the node ended the connection")


def answers(gateway, repositories: int, commits: int) -> dict:
    """What must be the same before and after: the list, and some repositories' heads and oldest commits."""
    listed = sorted(gateway.listed())
    require(len(listed) == repositories, f"{len(listed)} repositories are listed")
    found = {"listed": listed}
    for repo in listed[:: max(1, repositories // 5)]:
        history = gateway.commits(repo)
        require(len(history) == commits // repositories, f"{repo} has {len(history)} commits")
        oldest = gateway.get(gateway.file_path(repo, history[-1], "config.json"))
        require(oldest.status == 200, f"the oldest commit of {repo}: {oldest.status}")
        found[repo] = (history, gateway.json(f"/api/models/{repo}"), oldest.body)
    return found


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
