"""Runs a command beside a node that holds the samples: `with_samples.py COMMAND…`.

The command finds the gateway in HF_ENDPOINT, and in CAIRN_TEST_SAMPLES a JSON file that says what was
pushed. The exit code is the command's.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cairn
from cairn import AUTHOR_NAME, CommandFailed, Published
from pointers import blob_oid, sha256
from samples import Samples

NAMES = ("tiny_bert", "odd", "parquet", "space", "wide", "minilm")


def describe(published: Published) -> dict:
    """What was pushed, in the terms in which a client sees it."""
    return {
        "type": published.kind,
        "name": published.repo,
        "alias": published.alias,
        "commit": published.commit,
        "folder": str(published.folder),
        "files": {
            path: {"size": len(content), "sha256": sha256(content), "git": blob_oid(content)}
            for path, content in published.files().items()
        },
    }


def account(home: cairn.Node, name: str) -> dict:
    """A new account, and where it publishes."""
    home.run("admin", "user", "create", name)
    made = home.run("admin", "token", "create", "--user", name, "--scope", "write", "--name", "js")
    return {"name": name, "token": made["token"], "url": home.url}


def main(command: list[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="cairn-samples."))
    node = cairn.node(scratch / "node")
    try:
        node.start()
        samples = Samples(node, scratch / "samples")
        about = {name: describe(getattr(samples, name)) for name in NAMES} | {
            "branches": {ref: describe(published) for ref, published in samples.branches.items()},
            "history": [describe(published) for published in samples.history],
            "crowd": [describe(published) for published in samples.crowd["model"]],
            "author": AUTHOR_NAME,
            "namespace": node.namespace,
            "account": account(node.home, "grace"),
        }
        (scratch / "samples.json").write_text(json.dumps(about))
        code = subprocess.run(
            command,
            env=os.environ
            | {
                "HF_ENDPOINT": node.url,
                "HF_HOME": str(scratch / "hf"),
                "CAIRN_TEST_SAMPLES": str(scratch / "samples.json"),
            },
            check=False,
        ).returncode
        if (end := node.stop()) != 0:
            print(f"cairn up ended with {end}:\n{node.log.read_text()}", file=sys.stderr)
            code = code or 1
        return code
    except CommandFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    finally:
        node.kill()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
