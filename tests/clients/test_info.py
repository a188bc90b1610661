"""Repository information: models, datasets, spaces, refs, histories, what exists."""

from datetime import UTC, datetime, timedelta

import pytest
from cairn import AUTHOR_NAME, Node, Published
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    BadRequestError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pointers import blob_oid, pointer, sha256
from samples import HISTORY_COMMITS, Samples


def test_a_model_says_who_what_and_when(api: HfApi, node: Node, tiny_bert: Published) -> None:
    info = api.model_info(tiny_bert.repo)
    assert info.id == tiny_bert.repo
    assert info.author == node.namespace
    assert info.sha == tiny_bert.commit
    assert (info.private, info.gated, info.disabled) == (False, False, False)
    now = datetime.now(UTC)
    assert now - timedelta(hours=1) < info.created_at <= info.last_modified <= now
    names = {sibling.rfilename for sibling in info.siblings}
    assert names == {*tiny_bert.files(), ".gitattributes"}


def test_a_models_card_becomes_data_and_tags(api: HfApi, tiny_bert: Published) -> None:
    info = api.model_info(tiny_bert.repo)
    assert info.pipeline_tag == "feature-extraction"
    assert info.library_name == "transformers"
    assert {
        *("transformers", "tiny", "bert", "en", "feature-extraction"),
        *("license:apache-2.0", "dataset:local/table-csv"),
    } <= set(info.tags)
    assert info.card_data.license == "apache-2.0"
    assert info.card_data.language == ["en"]
    assert info.card_data.to_dict()["tags"] == ["tiny", "bert"]


def test_siblings_have_size_and_ids_when_asked(api: HfApi, tiny_bert: Published) -> None:
    plain = api.model_info(tiny_bert.repo)
    assert all(s.size is None and s.blob_id is None and s.lfs is None for s in plain.siblings)
    siblings = {s.rfilename: s for s in api.model_info(tiny_bert.repo, files_metadata=True).siblings}
    files = tiny_bert.files()
    config, weights = siblings["config.json"], siblings["model.safetensors"]
    assert (config.size, config.blob_id) == (
        len(files["config.json"]),
        blob_oid(files["config.json"]),
    )
    assert config.lfs is None
    content = files["model.safetensors"]
    assert (weights.size, weights.blob_id) == (len(content), blob_oid(pointer(content)))
    assert weights.lfs.sha256 == sha256(content)
    assert weights.lfs.size == len(content)
    assert weights.lfs.pointer_size == len(pointer(content))


def test_expand_returns_what_was_asked_and_no_more(api: HfApi, tiny_bert: Published) -> None:
    info = api.model_info(tiny_bert.repo, expand=["sha", "cardData", "lastModified"])
    assert info.sha == tiny_bert.commit
    assert info.card_data.license == "apache-2.0"
    assert info.last_modified is not None
    assert info.siblings is None
    assert info.author is None
    assert info.created_at is None


def test_every_documented_expand_is_taken(api: HfApi, samples: Samples) -> None:
    from typing import get_args

    from huggingface_hub import hf_api

    for call, repo, values in (
        (api.model_info, samples.tiny_bert.repo, hf_api.ExpandModelProperty_T),
        (api.dataset_info, samples.csv.repo, hf_api.ExpandDatasetProperty_T),
        (api.space_info, samples.space.repo, hf_api.ExpandSpaceProperty_T),
    ):
        assert call(repo, expand=list(get_args(values))).id == repo


def test_an_unknown_expand_is_a_bad_request_that_names_the_allowed(
    api: HfApi, samples: Samples
) -> None:
    for call, published in (
        (api.model_info, samples.tiny_bert),
        (api.dataset_info, samples.csv),
        (api.space_info, samples.space),
    ):
        with pytest.raises(BadRequestError) as error:
            call(published.repo, expand=["nonsense"])
        assert type(error.value) is BadRequestError
        assert "lastModified" in str(error.value)


def test_datasets_and_spaces_have_information_too(api: HfApi, samples: Samples) -> None:
    dataset = api.dataset_info(samples.parquet.repo, files_metadata=True)
    assert (dataset.id, dataset.sha) == (samples.parquet.repo, samples.parquet.commit)
    assert dataset.card_data.license == "cc-by-4.0"
    assert "task_categories:text-classification" in dataset.tags
    assert any(s.lfs is not None and s.rfilename.endswith(".parquet") for s in dataset.siblings)
    space = api.space_info(samples.space.repo)
    assert (space.id, space.sha, space.sdk) == (samples.space.repo, samples.space.commit, "gradio")
    assert {s.rfilename for s in space.siblings} == {
        *samples.space.files(),
        ".gitattributes",
    }


def test_ids_match_in_any_case(api: HfApi, tiny_bert: Published) -> None:
    namespace, name = tiny_bert.repo.split("/")
    for repo in (f"{namespace}/{name.upper()}", f"{namespace.upper()}/{name}", tiny_bert.alias.upper()):
        assert api.model_info(repo).sha == tiny_bert.commit


@pytest.mark.parametrize("revision", ["main", "dev", "feature/one", "v1.0", "refs/heads/dev"])
def test_information_of_a_revision(
    api: HfApi, branches: dict[str, Published], revision: str
) -> None:
    published = branches[revision.removeprefix("refs/heads/")]
    info = api.model_info(published.repo, revision=revision)
    assert info.sha == published.commit
    assert ("added/later.txt" in {s.rfilename for s in info.siblings}) == (revision == "main")


def test_a_commit_is_found_by_its_first_digits(api: HfApi, branches: dict[str, Published]) -> None:
    first = branches["first"]
    assert api.model_info(first.repo, revision=first.commit).sha == first.commit
    assert api.model_info(first.repo, revision=first.commit[:10]).sha == first.commit


def test_errors_of_information(api: HfApi, node: Node, branches: dict[str, Published]) -> None:
    repo = branches["main"].repo
    for kind, call in (
        (RepositoryNotFoundError, lambda: api.model_info(f"{node.namespace}/nothing")),
        (RepositoryNotFoundError, lambda: api.model_info("nobody/nothing")),
        (RepositoryNotFoundError, lambda: api.dataset_info(repo)),
        (RepositoryNotFoundError, lambda: api.space_info(repo)),
        (RevisionNotFoundError, lambda: api.model_info(repo, revision="absent")),
        (RepositoryNotFoundError, lambda: api.list_repo_refs("nobody/nothing")),
        (RepositoryNotFoundError, lambda: api.list_repo_commits("nobody/nothing")),
        (RevisionNotFoundError, lambda: api.list_repo_commits(repo, revision="absent")),
    ):
        with pytest.raises(kind) as error:
            call()
        assert type(error.value) is kind


def test_what_exists(api: HfApi, node: Node, samples: Samples) -> None:
    branches = samples.branches
    repo = branches["main"].repo
    assert api.repo_exists(repo)
    assert not api.repo_exists(repo, repo_type="dataset")
    assert not api.repo_exists(f"{node.namespace}/nothing")
    assert api.repo_exists(samples.csv.repo, repo_type="dataset")
    assert api.repo_exists(samples.space.repo, repo_type="space")
    assert api.file_exists(repo, "added/later.txt")
    assert not api.file_exists(repo, "added/later.txt", revision="dev")
    assert not api.file_exists(repo, "added/later.txt", revision="absent")
    assert not api.file_exists(f"{node.namespace}/nothing", "README.md")
    assert api.revision_exists(repo, "feature/one")
    assert api.revision_exists(repo, branches["first"].commit)
    assert not api.revision_exists(repo, "feature/two")
    assert not api.revision_exists(f"{node.namespace}/nothing", "main")


def test_refs_lead_to_their_commits(api: HfApi, branches: dict[str, Published]) -> None:
    refs = api.list_repo_refs(branches["main"].repo)
    assert {(b.name, b.ref, b.target_commit) for b in refs.branches} == {
        (name, f"refs/heads/{name}", branches[name].commit)
        for name in ("main", "dev", "feature/one")
    }
    assert [(t.name, t.ref, t.target_commit) for t in refs.tags] == [
        ("v1.0", "refs/tags/v1.0", branches["v1.0"].commit)
    ]
    assert refs.converts == []
    assert refs.pull_requests is None
    assert api.list_repo_refs(branches["main"].repo, include_pull_requests=True).pull_requests == []


def test_commits_newest_first_with_title_and_message(
    api: HfApi, branches: dict[str, Published]
) -> None:
    second, first = api.list_repo_commits(branches["main"].repo)
    assert (second.commit_id, first.commit_id) == (
        branches["main"].commit,
        branches["first"].commit,
    )
    assert (first.title, first.message) == ("First", "")
    assert (second.title, second.message) == ("Second", "With a body.\n\nOf two parts.")
    assert first.authors == second.authors == [AUTHOR_NAME]
    now = datetime.now(UTC)
    assert now - timedelta(hours=1) < first.created_at <= second.created_at <= now
    assert second.formatted_title is None
    assert second.formatted_message is None


def test_commits_of_a_branch_are_its_own(api: HfApi, branches: dict[str, Published]) -> None:
    commit, base = api.list_repo_commits(branches["feature/one"].repo, revision="feature/one")
    assert commit.commit_id == branches["feature/one"].commit
    # It begins where the default branch stood, and does not follow it.
    assert base.commit_id == branches["first"].commit
    assert commit.title


def test_formatted_commits_are_safe_html(api: HfApi, samples: Samples) -> None:
    newest = api.list_repo_commits(samples.history[-1].repo, formatted=True)[0]
    assert newest.title == f"Count to {HISTORY_COMMITS - 1}"
    assert newest.message == f"Body <b>{HISTORY_COMMITS - 1}</b>"
    assert newest.title in newest.formatted_title
    assert "&lt;b&gt;" in newest.formatted_message
    assert "<b>" not in newest.formatted_message


def test_a_long_history_comes_whole(api: HfApi, samples: Samples) -> None:
    commits = api.list_repo_commits(samples.history[0].repo)
    assert [c.commit_id for c in commits] == [p.commit for p in reversed(samples.history)]
    middle = samples.history[40]
    older = api.list_repo_commits(middle.repo, revision=middle.commit)
    assert [c.commit_id for c in older] == [p.commit for p in reversed(samples.history[:41])]
