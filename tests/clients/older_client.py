"""Steps that test_publish_older.py has an older huggingface_hub take, each in a process of its own.

    PYTHON older_client.py STEP REPOSITORY FOLDER

Prints as JSON what the step came to, and what the library warned of: `upload_large_folder` only logs what
goes wrong, and tries again for ever.
"""

import json
import logging
import os
import sys

import network

network.stay_on_loopback()

from huggingface_hub import HfApi, _upload_large_folder  # noqa: E402

# An idle worker looks again after ten seconds, which the end of each upload would take.
_upload_large_folder.WAITING_TIME_IF_NO_TASKS = 0.05

CUT_OFF = 9

warnings: list[str] = []


class Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warnings.append(record.getMessage())


class CutOff(HfApi):
    """Ends when all is sent and nothing is committed."""

    def create_commit(self, *arguments, **options):
        os._exit(CUT_OFF)


def publish(api: HfApi, repo: str, folder: str) -> dict:
    """Everything that one does to publish a folder, and what is said of it."""
    made = api.create_repo(repo, exist_ok=True)
    commit = api.upload_folder(repo_id=repo, folder_path=folder)
    return {"repo": made.repo_id, "url": commit, "name": api.whoami()["name"], "titles": titles(api, repo)}


def large(api: HfApi, repo: str, folder: str) -> dict:
    api.upload_large_folder(repo_id=repo, folder_path=folder, repo_type="model", print_report=False)
    return {"titles": titles(api, repo)}


def cut_off(_api: HfApi, repo: str, folder: str) -> dict:
    return large(CutOff(), repo, folder)


def download(api: HfApi, repo: str, folder: str) -> dict:
    return {"folder": api.snapshot_download(repo, local_dir=folder)}


def titles(api: HfApi, repo: str) -> list[str]:
    return [commit.title for commit in api.list_repo_commits(repo)]


STEPS = {"publish": publish, "large": large, "cut_off": cut_off, "download": download}

if __name__ == "__main__":
    logging.getLogger("huggingface_hub").addHandler(Warnings(logging.WARNING))
    step, repo, folder = sys.argv[1:]
    result = STEPS[step](HfApi(), repo, folder)
    print(json.dumps({**result, "warnings": warnings, "refused": network.REFUSED}))
