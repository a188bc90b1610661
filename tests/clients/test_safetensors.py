"""Safetensors metadata, read through ranges of the files."""

import json
from pathlib import Path

import pytest
from cairn import Published
from huggingface_hub import HfApi
from huggingface_hub.errors import NotASafetensorsRepoError
from samples import Samples


def header(path: Path) -> dict:
    """The JSON header of a safetensors file."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    return {
        name: (about["dtype"], about["shape"])
        for name, about in header(path).items()
        if name != "__metadata__"
    }


def test_a_single_file(api: HfApi, tiny_bert: Published) -> None:
    found = api.get_safetensors_metadata(tiny_bert.repo)
    assert not found.sharded
    (file,) = found.files_metadata.values()
    assert file.metadata == {"format": "pt"}
    assert {name: (t.dtype, t.shape) for name, t in file.tensors.items()} == tensors(
        tiny_bert.folder / "model.safetensors"
    )


def test_shards_behind_an_index(api: HfApi, samples: Samples) -> None:
    sharded = samples.sharded
    index = json.loads(sharded.files()["model.safetensors.index.json"])
    found = api.get_safetensors_metadata(sharded.repo)
    assert found.sharded
    assert found.weight_map == index["weight_map"]
    assert len(found.files_metadata) > 1
    for name, file in found.files_metadata.items():
        assert {n: (t.dtype, t.shape) for n, t in file.tensors.items()} == tensors(
            sharded.folder / name
        )


def test_shards_in_one_request(api: HfApi, samples: Samples) -> None:
    found = api.get_sharded_safetensors_metadata(samples.sharded.repo)
    index = json.loads(samples.sharded.files()["model.safetensors.index.json"])
    assert found.weight_map == index["weight_map"]
    assert set(found.files_metadata) == set(index["weight_map"].values())
    for name, file in found.files_metadata.items():
        assert {n: (t.dtype, t.shape) for n, t in file.tensors.items()} == tensors(
            samples.sharded.folder / name
        )


def test_a_large_header_takes_a_second_range(api: HfApi, samples: Samples) -> None:
    weights = samples.many_tensors.folder / "model.safetensors"
    assert int.from_bytes(weights.read_bytes()[:8], "little") > 100_000
    found = api.get_safetensors_metadata(samples.many_tensors.repo)
    (file,) = found.files_metadata.values()
    assert {name: (t.dtype, t.shape) for name, t in file.tensors.items()} == tensors(weights)


def test_a_repository_without_safetensors_says_so(
    api: HfApi, branches: dict[str, Published]
) -> None:
    with pytest.raises(NotASafetensorsRepoError) as error:
        api.get_safetensors_metadata(branches["main"].repo)
    assert type(error.value) is NotASafetensorsRepoError
