"""Names of the configuration's `[aliases]`: one segment, for code that knows no namespaces."""

from pathlib import Path

import pytest
from cairn import Published
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from samples import Samples


def test_a_bare_id_leads_to_its_repository(api: HfApi, tiny_bert: Published) -> None:
    assert api.model_info("gpt2").sha == tiny_bert.commit
    assert api.repo_exists("gpt2")
    assert "config.json" in api.list_repo_files("gpt2")
    path = hf_hub_download("gpt2", "config.json")
    assert Path(path).read_bytes() == tiny_bert.files()["config.json"]
    assert Path(snapshot_download("gpt2")).name == tiny_bert.commit


def test_a_bare_id_of_a_dataset(samples: Samples) -> None:
    csv = samples.csv
    path = hf_hub_download("rows", "train.csv", repo_type="dataset")
    assert csv.commit in path
    assert Path(path).read_bytes() == csv.files()["train.csv"]


def test_a_bare_id_that_nobody_configured(api: HfApi) -> None:
    assert not api.repo_exists("bert-base-uncased")
    with pytest.raises(RepositoryNotFoundError) as error:
        hf_hub_download("bert-base-uncased", "config.json")
    assert type(error.value) is RepositoryNotFoundError
