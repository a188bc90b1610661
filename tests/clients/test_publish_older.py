"""Files go up and come down through an older huggingface_hub, which has `upload_large_folder`."""

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from cairn import COMMAND_SECONDS
from http_client import request
from publisher import Account, Publisher, contents
from samples import SEED, write

pytestmark = pytest.mark.usefixtures("upload_path")

MIB = 1 << 20
TEXTS = 54
WEIGHTS = 3
CUT_OFF = 9
TITLE = "Add files using upload-large-folder tool"


def some_files(seed: str) -> dict[str, bytes]:
    """Small texts, weights of a few KiB to a few MiB, and two files of nothing.

    The same weights go up only once to a node: every test has others.
    """
    rng = random.Random(f"{SEED} {seed}")
    files = {f"texts/{at % 4}/{at}.txt": f"{at}\n".encode() * (at + 1) for at in range(TEXTS)}
    files |= {f"weights/{at}.safetensors": rng.randbytes(at * 2 * MIB + 4_000) for at in range(WEIGHTS)}
    return files | {"README.md": b"---\nlicense: mit\n---\n\n# Older\n", "empty.txt": b"", "empty.bin": b""}


class OlderClient:
    """The older library, with a home of its own, signed in as one account."""

    def __init__(self, publisher: Publisher, account: Account, home: Path) -> None:
        nowhere = "http://127.0.0.1:9"
        self.environment = os.environ | {
            "HF_ENDPOINT": publisher.url,
            "HF_TOKEN": account.token,
            "HF_HOME": str(home),
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def run(self, step: str, repo: str, folder: Path) -> subprocess.CompletedProcess:
        python = os.environ.get("CAIRN_TEST_OLDER_PYTHON")
        assert python, "CAIRN_TEST_OLDER_PYTHON names no Python with requirements-older.txt"
        script = Path(__file__).with_name("older_client.py")
        return subprocess.run(
            [python, script, step, repo, folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=self.environment,
            check=False,
        )

    def does(self, step: str, repo: str, folder: Path, *warnings: str) -> dict:
        """What came of a step, which went well and warned of just this."""
        done = self.run(step, repo, folder)
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert [result.pop(name) for name in ("warnings", "refused")] == [list(warnings), []]
        return result


@pytest.fixture
def older(publisher: Publisher, ada: Account, tmp_path: Path) -> OlderClient:
    return OlderClient(publisher, ada, tmp_path / "older")


def requests(publisher: Publisher, *families: str) -> int:
    """How many requests of these families the gateway has answered."""
    text = request(publisher.url, "/metrics").body.decode()
    found = re.findall(r'^cairn_gateway_requests_total\{family="(\w+)",status="\w+"\} (\d+)$', text, re.M)
    assert found
    return sum(int(count) for family, count in found if family in families)


def files_below(folder: Path) -> dict[str, bytes]:
    """What was downloaded to a folder, without the client's notes of it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    found.pop(".gitattributes")
    return {name: content for name, content in found.items() if not name.startswith(".cache/")}


def test_an_older_client_publishes_a_folder(
    publisher: Publisher, ada: Account, older: OlderClient, tmp_path: Path, upload_path: str
) -> None:
    repo = publisher.fresh_name(ada, "older")
    files = some_files(repo)
    folder = write(tmp_path / "folder", files)
    before = requests(publisher, "xet")
    expected = {
        "repo": repo,
        "url": f"{publisher.url}/{repo}/tree/main/",
        "name": ada.name,
        "titles": ["Upload folder using huggingface_hub", "initial commit"],
    }
    assert older.does("publish", repo, folder) == expected
    assert (requests(publisher, "xet") > before) == (upload_path == "xet")
    # Nothing changed: no commit.
    warning = "No files have been modified since last commit. Skipping to prevent empty commit."
    assert older.does("publish", repo, folder, warning) == expected
    older.does("download", repo, tmp_path / "down")
    assert files_below(tmp_path / "down") == files
    assert contents(ada, repo) == files


def test_an_older_client_downloads_what_todays_sent(
    publisher: Publisher, ada: Account, older: OlderClient, tmp_path: Path
) -> None:
    repo = publisher.repo(ada)
    files = some_files(repo)
    ada.api.upload_folder(repo_id=repo, folder_path=write(tmp_path / "folder", files))
    older.does("download", repo, tmp_path / "down")
    assert files_below(tmp_path / "down") == files


def test_a_large_folder_that_was_cut_off_is_not_sent_again(
    publisher: Publisher, ada: Account, older: OlderClient, tmp_path: Path, upload_path: str
) -> None:
    repo = publisher.fresh_name(ada, "large")
    files = some_files(repo)
    folder = write(tmp_path / "folder", files)
    before = requests(publisher, "xet")
    done = older.run("cut_off", repo, folder)
    assert done.returncode == CUT_OFF, done.stdout + done.stderr
    assert (requests(publisher, "xet") > before) == (upload_path == "xet")
    assert contents(ada, repo) == {}

    # Each commit of fifty files asks once which weights are there already, which all of them are.
    before = requests(publisher, "lfs", "xet")
    expected = {"titles": [TITLE, TITLE, "initial commit"]}
    assert older.does("large", repo, folder) == expected
    assert requests(publisher, "lfs", "xet") - before in (1, 2)
    # By its notes it has nothing left to do.
    before = requests(publisher, "lfs", "xet")
    assert older.does("large", repo, folder) == expected
    assert requests(publisher, "lfs", "xet") == before
    assert contents(ada, repo) == files
