"""What git and git-lfs say of a file, computed here from its bytes alone."""

import hashlib


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_oid(content: bytes) -> str:
    """The id that git gives a blob of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(content: bytes) -> bytes:
    """The canonical git-lfs pointer to these bytes."""
    return (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{sha256(content)}\nsize {len(content)}\n"
    ).encode()
