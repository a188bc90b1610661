"""One node for the whole session, samples published as tests ask for them, fresh caches for each test."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cairn  # noqa: E402
import network  # noqa: E402
from cairn import CommandFailed, Node, Published  # noqa: E402
from samples import Samples  # noqa: E402

_NODE = pytest.StashKey[Node]()
_SCRATCH = pytest.StashKey[Path]()
_PUBLISHER = pytest.StashKey[Node]()
_BAD_END = pytest.StashKey[str]()

# How large files are sent; every test that sends some runs once for each.
PATHS = ["lfs", "xet"]

# What publishes does so at a repository's home, which a node that only fetches is of none.
collect_ignore_glob = ["test_counts.py", "test_publish*.py"] if os.environ.get("CAIRN_TEST_REMOTE") else []

# Enough of the node's log to see why a test failed.
LOG_CHARACTERS = 20_000


def pytest_sessionstart(session: pytest.Session) -> None:
    """Starts the node before tests are collected: the clients read HF_ENDPOINT when they are imported."""
    if session.config.option.collectonly:
        return
    network.stay_on_loopback()
    # Short: the node's Unix socket lives below it, and such paths end at 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="cairn-clients."))
    session.config.stash[_SCRATCH] = scratch
    node = cairn.node(scratch / "node").start()
    session.config.stash[_NODE] = node
    os.environ |= {
        "HF_ENDPOINT": node.url,
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_OFFLINE"):
        os.environ.pop(name, None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends the node; one that does not end well is one more failure."""
    if (node := session.config.stash.get(_NODE, None)) is None:
        return
    try:
        code = node.stop()
        end = f"cairn up ended with {code} on SIGTERM" if code != 0 else None
    except CommandFailed as failed:
        end = str(failed)
    if end is not None:
        session.config.stash[_BAD_END] = end
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if (scratch := config.stash.get(_SCRATCH, None)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A test that is skipped is a test that failed: nothing here may be left out unnoticed."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which no test here may be: {report.longrepr}"


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    stats = terminalreporter.stats
    passed = len(stats.get("passed", []))
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    if (end := config.stash.get(_BAD_END, None)) is not None:
        failed += 1
        terminalreporter.section("the node did not end well", red=True)
        terminalreporter.write_line(end)
    for title, key in (("", _NODE), (" to publish", _PUBLISHER)):
        if failed and (node := config.stash.get(key, None)) is not None:
            terminalreporter.section(f"the end of what cairn up{title} printed")
            terminalreporter.write(node.log.read_text(errors="replace")[-LOG_CHARACTERS:])
    terminalreporter.section("count")
    terminalreporter.write_line(f"{passed} passed, {failed} failed")


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Node:
    return pytestconfig.stash[_NODE]


@pytest.fixture(scope="session")
def samples(pytestconfig: pytest.Config) -> Samples:
    return Samples(pytestconfig.stash[_NODE], pytestconfig.stash[_SCRATCH] / "samples")


@pytest.fixture(scope="session")
def url(node: Node) -> str:
    """The gateway's root, as HF_ENDPOINT."""
    return node.url


@pytest.fixture(scope="session")
def api():
    from huggingface_hub import HfApi

    return HfApi()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of its own for each test: nothing that a test reads was fetched by another."""
    import datasets
    import huggingface_hub.constants
    from huggingface_hub import HfFileSystem

    home = tmp_path / "hf"
    hub = home / "hub"
    hub.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(home))
    for name, path in {
        "HF_HOME": home,
        "HF_HUB_CACHE": hub,
        "HF_ASSETS_CACHE": home / "assets",
        "HF_XET_CACHE": home / "xet",
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, str(path))
    for name, path in {
        "HF_CACHE_HOME": home,
        "HF_DATASETS_CACHE": home / "datasets",
        "HF_MODULES_CACHE": home / "modules",
        "DOWNLOADED_DATASETS_PATH": home / "datasets" / "downloads",
        "EXTRACTED_DATASETS_PATH": home / "datasets" / "downloads" / "extracted",
    }.items():
        monkeypatch.setattr(datasets.config, name, str(path))
    # File systems are kept per process with their listings.
    HfFileSystem.clear_instance_cache()
    return hub


@pytest.fixture(scope="session")
def publisher(pytestconfig: pytest.Config):
    """A node beside the session's, for what tests publish through its gateway."""
    from publisher import Publisher

    node = Node(pytestconfig.stash[_SCRATCH] / "publisher").start()
    pytestconfig.stash[_PUBLISHER] = node
    try:
        yield Publisher(node)
        assert node.stop() == 0, node.log.read_text()[-LOG_CHARACTERS:]
    finally:
        node.kill()


@pytest.fixture
def lone_node(pytestconfig: pytest.Config):
    """A node of one test alone, which starts and stops it."""
    node = Node(pytestconfig.stash[_SCRATCH] / "lone")
    try:
        yield node
    finally:
        node.kill()
        shutil.rmtree(node.root, ignore_errors=True)


@pytest.fixture(scope="session")
def ada(publisher):
    """An account that publishes."""
    return publisher.account("ada")


@pytest.fixture(scope="session")
def bob(publisher):
    """An account that was let in nowhere."""
    return publisher.account("bob")


@pytest.fixture(scope="session")
def nobody(publisher):
    """Whoever comes without a token."""
    return publisher.as_token(None)


@pytest.fixture
def clients_at_publisher(publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that are told no endpoint go to the publisher's node, as if HF_ENDPOINT named it."""
    import datasets
    import huggingface_hub
    import transformers

    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, publisher.url)
    monkeypatch.setattr(constants, "ENDPOINT", publisher.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", publisher.url)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", publisher.url)
    # Made at its first use, and kept.
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)


@pytest.fixture(params=PATHS)
def upload_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How this test's large files are sent."""
    import huggingface_hub.constants

    disabled = request.param != "xet"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", disabled)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1" if disabled else "0")
    return request.param


@pytest.fixture
def tiny_bert(samples: Samples) -> Published:
    return samples.tiny_bert


@pytest.fixture
def odd(samples: Samples) -> Published:
    return samples.odd


@pytest.fixture
def branches(samples: Samples) -> dict[str, Published]:
    return samples.branches
