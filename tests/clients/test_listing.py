"""Lists of models, datasets and spaces: author, search, filter, sort, limit, pages."""

import pytest
from cairn import Node, Published
from huggingface_hub import HfApi
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils._pagination import paginate
from samples import CROWD_DATASETS, CROWD_MODELS, CROWD_SPACES, Samples


@pytest.fixture
def crowd(samples: Samples) -> dict[str, list[Published]]:
    return samples.crowd


def ids(items) -> list[str]:
    found = [item.id for item in items]
    assert len(found) == len(set(found)), "an item is listed twice"
    return found


def repos(published: list[Published]) -> set[str]:
    return {p.repo for p in published}


def test_each_kind_is_listed_apart(
    api: HfApi, samples: Samples, crowd: dict[str, list[Published]]
) -> None:
    assert samples.csv and samples.space and samples.tiny_bert
    models, datasets, spaces = (
        set(ids(call())) for call in (api.list_models, api.list_datasets, api.list_spaces)
    )
    assert repos(crowd["model"]) | {samples.tiny_bert.repo} <= models
    assert repos(crowd["dataset"]) | {samples.csv.repo} <= datasets
    assert repos(crowd["space"]) | {samples.space.repo} <= spaces
    assert not models & datasets
    assert not datasets & spaces


def test_the_author_chooses(
    api: HfApi, node: Node, crowd: dict[str, list[Published]]
) -> None:
    assert repos(crowd["model"]) <= set(ids(api.list_models(author=node.namespace)))
    assert all(item.author == node.namespace for item in api.list_models(author=node.namespace))
    assert ids(api.list_models(author="nobody")) == []
    assert ids(api.list_datasets(author="nobody")) == []
    assert ids(api.list_spaces(author="nobody")) == []


def test_search_looks_into_names_in_any_case(
    api: HfApi, crowd: dict[str, list[Published]]
) -> None:
    assert set(ids(api.list_models(search="crowd-model"))) == repos(crowd["model"])
    assert ids(api.list_models(search="CROWD-Model-03")) == [crowd["model"][3].repo]
    assert set(ids(api.list_datasets(search="crowd-data"))) == repos(crowd["dataset"])
    assert set(ids(api.list_spaces(search="crowd-space"))) == repos(crowd["space"])
    assert ids(api.list_models(search="no such model")) == []


def test_filters_read_the_cards(api: HfApi, crowd: dict[str, list[Published]]) -> None:
    models = crowd["model"]
    by = {
        "license:mit": models[0::3],
        "diffusers": models[1::2],
        "text-generation": models[0::2],
        "member-7": [models[7]],
        "fr": [models[4]],
    }
    for tag, expected in by.items():
        found = ids(api.list_models(filter=["crowd", tag]))
        assert set(found) == repos(expected), tag
    assert ids(api.list_models(filter="member-7")) == [models[7].repo]
    assert ids(api.list_models(filter=["crowd", "no-such-tag"])) == []
    assert set(ids(api.list_models(pipeline_tag="text-to-image"))) == repos(models[1::2])
    assert set(ids(api.list_models(trained_dataset="local/table-csv", filter="crowd"))) == {
        models[5].repo
    }


def test_datasets_and_spaces_are_filtered_too(
    api: HfApi, samples: Samples, crowd: dict[str, list[Published]]
) -> None:
    found = ids(api.list_datasets(filter="task_categories:translation"))
    assert set(found) == repos(crowd["dataset"][0::2])
    assert ids(api.list_datasets(filter="language:en")) == [samples.csv.repo]
    assert set(ids(api.list_spaces(filter="crowd"))) == repos(crowd["space"])


def test_sorted_lists_go_down(api: HfApi, crowd: dict[str, list[Published]]) -> None:
    assert crowd
    created = [m.created_at for m in api.list_models(sort="created_at", full=True)]
    assert len(created) >= CROWD_MODELS
    assert created == sorted(created, reverse=True)
    modified = [m.last_modified for m in api.list_models(sort="last_modified", full=True)]
    assert modified == sorted(modified, reverse=True)
    for sort in ("downloads", "likes", "trending_score"):
        values = [getattr(m, sort) for m in api.list_models(sort=sort, expand=[
            {"trending_score": "trendingScore"}.get(sort, sort)
        ])]
        assert len(values) >= CROWD_MODELS
        assert values == sorted(values, reverse=True), sort


def test_a_limit_is_kept(api: HfApi, crowd: dict[str, list[Published]]) -> None:
    assert len(ids(api.list_models(limit=3))) == 3
    assert len(ids(api.list_models(limit=1, search="crowd-model-02"))) == 1
    assert len(ids(api.list_datasets(limit=2))) == 2
    assert len(ids(api.list_models(limit=5000, search="crowd-model"))) == len(crowd["model"])


@pytest.mark.parametrize(
    ("kind", "count"),
    [("model", CROWD_MODELS), ("dataset", CROWD_DATASETS), ("space", CROWD_SPACES)],
)
@pytest.mark.parametrize("sort", [None, "createdAt", "lastModified"])
def test_links_lead_through_every_page_once(
    url: str, crowd: dict[str, list[Published]], kind: str, count: int, sort: str | None
) -> None:
    query = {"limit": 2, "filter": "crowd", "full": True} | ({"sort": sort} if sort else {})
    pages = paginate(f"{url}/api/{kind}s", params=query, headers=build_hf_headers())
    found = list(pages)
    assert len(found) == count
    assert {item["id"] for item in found} == repos(crowd[kind])
    # The links carry the whole query along, not only the place.
    assert all("siblings" in item for item in found)


def test_items_grow_when_asked(api: HfApi, crowd: dict[str, list[Published]]) -> None:
    published = crowd["model"][0]
    (plain,) = api.list_models(search="crowd-model-00")
    assert plain.siblings is None
    assert plain.tags and plain.pipeline_tag == "text-generation"
    assert plain.library_name == "transformers"
    assert plain.private is False
    assert plain.created_at is not None
    (full,) = api.list_models(search="crowd-model-00", full=True)
    assert {s.rfilename for s in full.siblings} == {"README.md", ".gitattributes"}
    assert full.sha == published.commit
    assert full.last_modified is not None
    (card,) = api.list_models(search="crowd-model-00", cardData=True)
    assert card.card_data.license == "mit"
    (expanded,) = api.list_models(search="crowd-model-00", expand=["sha"])
    assert expanded.sha == published.commit
    assert expanded.tags is None
