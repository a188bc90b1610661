"""A file whose size no 32-bit number holds goes up and comes down by every way that clients have."""

import pytest

from cairn import Memory
from folders import MIB, file_sha256, write_random
from hub import Client, account, requests

LONG_BYTES = (4 << 30) + 1
# More than a xorb, and more than a part of LFS.
SHORT_BYTES = 300 * MIB + 1


@pytest.mark.parametrize("by", ["lfs", "xet"])
def test_a_file_beyond_32_bits(cairn, folder, rng, long, by):
    gateway = cairn.up()
    ada = account(cairn, "ada")
    size = LONG_BYTES if long else SHORT_BYTES
    source = folder / "source.bin"
    write_random(source, rng, size)
    sha256 = file_sha256(source)
    with (
        Memory(cairn.process.pid) as memory,
        Client(gateway.url, ada, folder / "home", xet=by == "xet") as client,
    ):
        repo = "ada/large"
        client.call("create_repo", repo_id=repo)
        commit = client.commit(repo, ("add", "large.bin", str(source)))
        # Room for what comes down.
        source.unlink()
        entry = next(entry for entry in gateway.tree(repo, commit) if entry["path"] == "large.bin")
        assert (entry["size"], entry["lfs"]["oid"]) == (size, sha256)
        assert ("xetHash" in entry) == (by == "xet")
        got = gateway.file(repo, commit, "large.bin")
        assert (got.status, got.sha256) == (200, sha256)
        asked = requests(gateway, "xet")
        path = client.call("hf_hub_download", repo_id=repo, filename="large.bin")
        assert (requests(gateway, "xet") > asked) == (by == "xet")
        assert file_sha256(path) == sha256
    print(f"memory grew by {memory.growth / MIB:.0f} MiB to {memory.peak / MIB:.0f} MiB")
    assert memory.peak < 300 * MIB
    assert cairn.run("verify").returncode == 0
