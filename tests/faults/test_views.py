"""The sled folder deleted, cut or flipped while the node is down: every answer as before."""

import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from folders import MIB, fingerprint, renew, sample


class Published:
    """A node with some history in it, and everything that it answers."""

    def __init__(self, cairn, folder, rng):
        self.cairn = cairn
        self.repos = []
        cairn.up()
        for name, prefix, options in [
            ("alpha", "", ()),
            ("beta", "", ()),
            ("gamma", "datasets/", ("--dataset",)),
        ]:
            source = sample(folder / name, rng, large=(3 * MIB, 100_000), small=30, name=name)
            for number in range(3):
                answer = cairn.push(source, name, *options, "-m", f"change {number}")
                paths = sorted(fingerprint(source))
                renew(source, rng)
            self.repos.append((answer["repo"], prefix, paths))
        cairn.json("pin", "local/beta")
        self.before = self.answers()
        assert cairn.stop() == 0
        self.pristine = folder / "pristine"
        shutil.copytree(cairn.data / "views", self.pristine)

    def answers(self) -> dict:
        """What the running node says to all that one can ask."""
        gateway = self.cairn.gateway
        found = {}
        for plural in ("models", "datasets", "spaces"):
            for query in ("full=true", "search=a&sort=lastModified", "filter=alpha", "limit=1"):
                path = f"/api/{plural}?{query}"
                found[path] = sorted(gateway.pages(path), key=lambda item: item["id"])
        for repo, prefix, paths in self.repos:
            plural = prefix.rstrip("/") or "models"
            api = f"/api/{plural}/{repo}"
            history = gateway.commits(repo, prefix=plural)
            assert len(history) == 3
            found[f"{api} commits"] = gateway.pages(f"{api}/commits/main")
            for path in (api, f"{api}?blobs=true", f"{api}/refs"):
                found[path] = gateway.json(path)
            for commit in history:
                for path in (f"{api}/revision/{commit}", f"{api}/revision/{commit[:8]}"):
                    found[path] = gateway.json(path)
                path = f"{api}/tree/{commit}?recursive=true&expand=true"
                found[path] = gateway.pages(path)
                for path in paths:
                    got = gateway.file(repo, commit, path, prefix)
                    found[f"{repo} {commit} {quote(path)}"] = (
                        got.status,
                        got.sha256,
                        got.headers["ETag"],
                        got.headers["X-Repo-Commit"],
                    )
            found[f"info {repo}"] = self.cairn.json("info", f"{prefix}{repo}")
        found["ls"] = self.cairn.json("ls")
        return found

    def check_after(self, damage):
        """Restores the views as they were, damages them, starts, compares, and stops."""
        views = self.cairn.data / "views"
        shutil.rmtree(views)
        shutil.copytree(self.pristine, views)
        damage(views)
        self.cairn.up()
        after = self.answers()
        assert after.keys() == self.before.keys()
        for question, answer in self.before.items():
            assert after[question] == answer, f"another answer to {question}"
        assert self.cairn.stop() == 0


@pytest.fixture
def published(cairn, folder, rng):
    return Published(cairn, folder, rng)


def view_files(views: Path) -> list:
    found = sorted(path for path in views.rglob("*") if path.is_file())
    assert found, "the views are not where this test looks"
    return found


def test_views_deleted(published):
    published.check_after(shutil.rmtree)


def test_views_emptied(published):
    def remove_files(views):
        for path in view_files(views):
            path.unlink()

    published.check_after(remove_files)


def test_views_replaced_by_junk(published, rng):
    def junk(views):
        for path in view_files(views):
            path.write_bytes(rng.randbytes(max(path.stat().st_size, 1000)))

    published.check_after(junk)


def test_view_files_truncated(published, long):
    shares = [i / 20 for i in range(20)] if long else [0, 0.3, 0.7, 0.99]
    for name in [path.name for path in view_files(published.pristine)]:
        for share in shares:

            def truncate(views, name=name, share=share):
                for path in view_files(views):
                    if path.name == name:
                        with open(path, "r+b") as file:
                            file.truncate(int(path.stat().st_size * share))

            print(f"{name} cut to {share:.0%}")
            published.check_after(truncate)


def test_view_files_with_flipped_bytes(published, rng, long):
    for round_number in range(40 if long else 6):

        def flip(views):
            path = max(view_files(views), key=lambda path: path.stat().st_size)
            content = bytearray(path.read_bytes())
            # sled grows its file ahead of use: flips go where there is something.
            used = [i for i in range(0, len(content), 512) if any(content[i : i + 512])]
            for start in rng.sample(used, min(len(used), 1 + round_number)):
                place = start + rng.randrange(512)
                if place < len(content):
                    content[place] ^= 1 << rng.randrange(8)
            path.write_bytes(content)

        published.check_after(flip)


def test_doctor_rebuild_changes_no_answer(published):
    cairn = published.cairn
    cairn.json("doctor", "--rebuild")
    published.check_after(lambda views: None)
    cairn.up()
    cairn.json("doctor", "--rebuild")
    assert published.answers() == published.before
