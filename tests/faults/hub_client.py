"""The hub's own client in a process of its own: a JSON line for each call, a JSON line for its answer.

It is started by `hub.Client`, which may kill it: what it has not answered is not acknowledged.
"""

import json
import sys
import threading
import time

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import HfHubHTTPError

# Tries of a writer that names the parent it has seen, until it is the first once more.
TRIES_MAX = 500


def operation(kind: str, path: str, more=None, revision=None):
    """An operation of a commit: `add` a local file, `delete`, or `copy` from a path and revision."""
    if kind == "add":
        return CommitOperationAdd(path_in_repo=path, path_or_fileobj=more)
    if kind == "text":
        return CommitOperationAdd(path_in_repo=path, path_or_fileobj=more.encode())
    if kind == "delete":
        return CommitOperationDelete(path_in_repo=path)
    return CommitOperationCopy(more, path, src_revision=revision)


def call(api: HfApi, method: str, arguments: dict):
    """Calls a method of `HfApi`."""
    if "operations" in arguments:
        arguments["operations"] = [operation(*given) for given in arguments["operations"]]
    result = getattr(api, method)(**arguments)
    return result.oid if hasattr(result, "oid") else str(result)


def write(api: HfApi, repo: str, name: str, count: int, is_strict: bool, answers: list):
    """Makes so many commits to one branch, each of a text and a binary file of its own."""
    for number in range(count):
        path, text = f"{name}/{number}.txt", f"{name} wrote {number}"
        binary = b"\0" + text.encode()
        for _ in range(TRIES_MAX):
            parent = api.repo_info(repo).sha if is_strict else None
            operations = [
                CommitOperationAdd(path, text.encode()),
                CommitOperationAdd(f"{name}/{number}.bin", binary),
            ]
            begin = time.monotonic()
            try:
                done = api.create_commit(
                    repo, operations, commit_message=path, parent_commit=parent
                )
            except HfHubHTTPError as error:
                answers.append({"status": error.response.status_code, "text": str(error)})
                if is_strict and error.response.status_code == 412:
                    continue
                return
            except Exception as error:
                answers.append({"status": 0, "text": repr(error)})
                return
            seconds = time.monotonic() - begin
            answers.append({"status": 200, "commit": done.oid, "path": path, "seconds": seconds})
            break
        else:
            answers.append({"status": 0, "text": f"{name} was never the first in {TRIES_MAX} tries"})


def writers(api: HfApi, repo: str, names: list, count: int, is_strict: bool) -> list:
    """What so many writers at once were answered."""
    answers = []
    threads = [
        threading.Thread(target=write, args=(api, repo, name, count, is_strict, answers))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def main(endpoint: str, token: str):
    """Answers calls until its input ends."""
    api = HfApi(endpoint=endpoint, token=token)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            if method == "writers":
                answer = {"result": writers(api, **arguments)}
            else:
                answer = {"result": call(api, method, arguments)}
        except HfHubHTTPError as error:
            answer = {"error": f"{error!r}", "status": error.response.status_code}
        except Exception as error:
            answer = {"error": f"{error!r}", "status": 0}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
