"""Publishing through the hub's API: a node with accounts, and what each of them sees of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cairn import COMMAND_SECONDS, Node
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

# What a tree holds beside what was published.
ATTRIBUTES = ".gitattributes"


@dataclass(frozen=True)
class Account:
    """An account and one of its tokens; without a name, whoever has none."""

    name: str
    token: str | None
    api: HfApi


class Publisher:
    """A node of its own: what is published there is seen by no test that only reads."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.url = node.url
        self.repos_made = 0

    def as_token(self, token: str | None, name: str = "") -> Account:
        """Whoever comes with this token; `None` comes with none at all."""
        return Account(name, token, HfApi(endpoint=self.url, token=False if token is None else token))

    def account(self, name: str, *flags: str) -> Account:
        """A new account, with a token for everything."""
        self.node.run("admin", "user", "create", name, *flags)
        return self.as_token(self.token(name), name)

    def token(self, user: str, scope: str = "write", repos: Iterable[str] = (), name: str = "test") -> str:
        only = [argument for repo in repos for argument in ("--repo", repo)]
        made = self.node.run(
            *("admin", "token", "create", "--user", user, "--scope", scope, "--name", name, *only)
        )
        return made["token"]

    def grant(self, repo: str, user: str, access: str) -> None:
        self.node.run("admin", "grant", repo, user, access)

    def fresh_name(self, owner: Account, word: str = "repo") -> str:
        """An id that nothing has had."""
        self.repos_made += 1
        return f"{owner.name}/{word}-{self.repos_made}"

    def repo(self, owner: Account, kind: str = "model", **options: bool) -> str:
        """A new repository's id."""
        name = self.fresh_name(owner, kind)
        return owner.api.create_repo(name, repo_type=kind, **options).repo_id

    def hf(self, *arguments: str | Path, home: Path, account: Account | None = None):
        """Runs the `hf` command; signed in by the environment where an account is given."""
        nowhere = "http://127.0.0.1:9"
        environment = os.environ | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if account is not None:
            environment["HF_TOKEN"] = account.token
        return subprocess.run(
            [Path(sys.executable).parent / "hf", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=environment,
            check=False,
        )

    def hf_json(self, *arguments: str | Path, home: Path, account: Account | None = None):
        """What `hf … --json` printed; it must end well."""
        done = self.hf(*arguments, "--json", home=home, account=account)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def contents(account: Account, repo: str, kind: str = "model", revision: str | None = None) -> dict[str, bytes]:
    """Path to bytes of all that a repository holds, as this account downloads it."""
    root = Path(account.api.snapshot_download(repo, repo_type=kind, revision=revision))
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
    found.pop(ATTRIBUTES, None)
    return found


def entry(account: Account, repo: str, path: str, kind: str = "model"):
    """What the server says of one file: the way it is kept, its size, its hashes."""
    (found,) = account.api.get_paths_info(repo, path, repo_type=kind)
    return found


def titles(account: Account, repo: str, revision: str | None = None) -> list[str]:
    """The history's titles, newest first."""
    return [commit.title for commit in account.api.list_repo_commits(repo, revision=revision)]


@contextmanager
def refused(status: int, kind: type[Exception] = HfHubHTTPError, match: str | None = None) -> Iterator[None]:
    """The client raises exactly this class, for this status."""
    with pytest.raises(kind, match=match) as error:
        yield
    assert type(error.value) is kind
    assert error.value.response.status_code == status


@contextmanager
def hidden() -> Iterator[None]:
    """The client is told that there is no such repository: with 401 or 404, the code counts."""
    with pytest.raises(RepositoryNotFoundError) as error:
        yield
    assert type(error.value) is RepositoryNotFoundError
    assert error.value.response.status_code in (401, 404)
