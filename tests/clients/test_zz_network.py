"""No client leaves loopback while these tests run: sorts last, and looks at what was refused."""

import os
from urllib.parse import urlsplit

import network
import pytest
from datasets import load_dataset
from samples import Samples


def test_only_the_viewer_of_the_gateway_was_looked_for(samples: Samples) -> None:
    # The one look-up that `datasets` makes beside the endpoint; it goes on without an answer.
    assert load_dataset(samples.csv.repo, split="test").num_rows
    viewer = f"datasets-server.{urlsplit(os.environ['HF_ENDPOINT']).hostname}"
    assert set(network.REFUSED) == {viewer}


def test_the_guard_refuses_what_is_not_loopback() -> None:
    import socket

    before = list(network.REFUSED)
    try:
        with pytest.raises(OSError, match="loopback"):
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        with pytest.raises(OSError, match="loopback"):
            socket.getaddrinfo("example.org", 80)
    finally:
        network.REFUSED[:] = before
