"""Options, seeds and folders of the fault tests."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from cairn import Cairn, binary, end_by_signal


def pytest_addoption(parser):
    parser.addoption(
        "--long",
        action="store_true",
        default=bool(os.environ.get("CAIRN_TEST_LONG")),
        help="the counts of the issue, not a sample (also: CAIRN_TEST_LONG=1)",
    )
    parser.addoption(
        "--seed", type=int, default=None, help="draw the same instants and bytes again"
    )


def pytest_configure(config):
    given = config.getoption("--seed")
    if given is None:
        given = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4), "little"))
    config.seed = given
    binary()
    end_by_signal()


def pytest_report_header(config):
    return f"seed: {config.seed} (again with --seed {config.seed})"


def pytest_terminal_summary(terminalreporter):
    """Ends with the line that tests/run counts by."""
    count = {name: len(found) for name, found in terminalreporter.stats.items()}
    failed = count.get("failed", 0) + count.get("error", 0) + count.get("skipped", 0)
    terminalreporter.write_line(f"{count.get('passed', 0)} passed, {failed} failed")


def pytest_runtest_makereport(item, call):
    if call.excinfo is not None and call.when == "call":
        item.add_report_section("call", "seed", f"--seed {item.config.seed}")


@pytest.fixture
def long(request) -> bool:
    """Whether the full counts are asked for."""
    return request.config.getoption("--long")


@pytest.fixture
def rng(request) -> random.Random:
    """Randomness of one test: from the run's seed and the test's name."""
    return random.Random(f"{request.config.seed}:{request.node.name}")


@pytest.fixture
def folder():
    """An empty folder, removed at the end whatever happens (runs write many gigabytes).

    Short of name: a Unix socket's path has 107 bytes at most.
    """
    path = Path(tempfile.mkdtemp(prefix="cairn-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cairn(folder):
    """A data folder that does not exist yet, and its node once started."""
    made = Cairn(folder / "data")
    yield made
    made.close()
