"""Files around what is sent in one piece, and one of a size that no 32-bit number holds, up and down by every way
that clients have."""

import pytest

from cairn import Memory
from folders import MIB, file_sha256, write_random
from hub import Client, account, requests

# A whole xorb, and a part of LFS.
PIECE_BYTES = 64 * MIB
# From here on LFS has parts.
PARTS_BYTES = 256 * MIB
LONG_BYTES = (4 << 30) + 1
SHORT_BYTES = 5 * PIECE_BYTES + 1


@pytest.fixture(params=["lfs", "xet"])
def way(request):
    """How large files are sent and fetched."""
    return request.param


def goes_up_and_comes_down(cairn, folder, rng, way, size):
    """A file of noise of that size, in little memory; by plain HTTP it comes down, too."""
    gateway = cairn.up()
    ada = account(cairn, "ada")
    source = folder / "source.bin"
    write_random(source, rng, size)
    sha256 = file_sha256(source)
    with (
        Memory(cairn.process.pid) as memory,
        Client(gateway.url, ada, folder / "home", xet=way == "xet") as client,
    ):
        repo = "ada/large"
        client.call("create_repo", repo_id=repo)
        commit = client.commit(repo, ("add", "large.bin", str(source)))
        # Room for what comes down.
        source.unlink()
        entry = next(entry for entry in gateway.tree(repo, commit) if entry["path"] == "large.bin")
        assert (entry["size"], entry["lfs"]["oid"]) == (size, sha256)
        assert ("xetHash" in entry) == (way == "xet")
        got = gateway.file(repo, commit, "large.bin")
        assert (got.status, got.sha256) == (200, sha256)
        asked = requests(gateway, "xet")
        path = client.call("hf_hub_download", repo_id=repo, filename="large.bin")
        assert (requests(gateway, "xet") > asked) == (way == "xet")
        assert file_sha256(path) == sha256
    print(f"memory grew by {memory.growth / MIB:.0f} MiB to {memory.peak / MIB:.0f} MiB")
    assert memory.peak < 300 * MIB
    assert cairn.run("verify").returncode == 0


@pytest.mark.parametrize("piece", [PIECE_BYTES, PARTS_BYTES])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_file_around_a_piece(cairn, folder, rng, way, piece, more):
    goes_up_and_comes_down(cairn, folder, rng, way, piece + more)


def test_a_file_beyond_32_bits(cairn, folder, rng, long, way):
    goes_up_and_comes_down(cairn, folder, rng, way, LONG_BYTES if long else SHORT_BYTES)
