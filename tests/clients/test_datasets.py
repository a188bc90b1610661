"""`datasets.load_dataset`, at once and streaming, against the rows that were written."""

import pytest
from cairn import Node
from datasets import Dataset, IterableDataset, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetNotFoundError
from samples import (
    CSV_ROWS,
    JSONL_ROWS,
    PARQUET_ROWS,
    Samples,
    csv_rows,
    jsonl_rows,
    parquet_rows,
)


@pytest.mark.parametrize("streaming", [False, True])
def test_csv(samples: Samples, streaming: bool) -> None:
    loaded = load_dataset(samples.csv.repo, streaming=streaming)
    assert set(loaded) == set(CSV_ROWS)
    for split, rows in loaded.items():
        assert isinstance(rows, IterableDataset if streaming else Dataset)
        assert list(rows) == csv_rows(split)


@pytest.mark.parametrize("streaming", [False, True])
def test_json_lines_in_several_files(samples: Samples, streaming: bool) -> None:
    loaded = load_dataset(samples.jsonl.repo, streaming=streaming)
    assert set(loaded) == set(JSONL_ROWS)
    for split, rows in loaded.items():
        assert list(rows) == jsonl_rows(split)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("config", sorted(PARQUET_ROWS))
def test_parquet_in_configurations_of_the_card(
    samples: Samples, config: str, streaming: bool
) -> None:
    loaded = load_dataset(samples.parquet.repo, config, streaming=streaming)
    assert set(loaded) == set(PARQUET_ROWS[config])
    for split, rows in loaded.items():
        assert list(rows) == parquet_rows(config, split)


def test_the_card_names_the_configurations(samples: Samples) -> None:
    assert set(get_dataset_config_names(samples.parquet.repo)) == set(PARQUET_ROWS)
    assert load_dataset(samples.parquet.repo, split="test").num_rows == sum(
        PARQUET_ROWS["default"]["test"]
    )


def test_a_stream_can_begin_in_the_middle(samples: Samples) -> None:
    stream = load_dataset(samples.parquet.repo, split="train", streaming=True)
    rows = parquet_rows("default", "train")
    assert list(stream.skip(70).take(5)) == rows[70:75]
    (column,) = {tuple(row) for row in stream.select_columns("number").take(3)}
    assert column == ("number",)


def test_chosen_files_and_slices(samples: Samples) -> None:
    part = load_dataset(
        samples.jsonl.repo, data_files="data/train-00001-of-00002.jsonl", split="train[:10]"
    )
    first = JSONL_ROWS["train"][0]
    assert list(part) == jsonl_rows("train")[first : first + 10]


def test_a_commit_id_is_a_revision(samples: Samples) -> None:
    loaded = load_dataset(samples.csv.repo, revision=samples.csv.commit, split="test")
    assert list(loaded) == csv_rows("test")


def test_the_local_alias_is_a_name_too(samples: Samples) -> None:
    assert list(load_dataset(samples.csv.alias, split="test")) == csv_rows("test")


def test_what_is_missing_raises_the_librarys_error(node: Node, samples: Samples) -> None:
    for repo, options in (
        (f"{node.namespace}/nothing", {}),
        ("nobody/nothing", {"streaming": True}),
        (samples.csv.repo, {"revision": "absent"}),
        # A model is no dataset.
        (samples.tiny_bert.repo, {}),
    ):
        with pytest.raises(DatasetNotFoundError) as error:
            load_dataset(repo, **options)
        assert type(error.value) is DatasetNotFoundError
