"""transformers' `from_pretrained`, against the local folder that was pushed."""

from pathlib import Path

import pytest
import torch
from cairn import Node, Published
from samples import Samples
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertModel

SENTENCES = [
    "A federation of peers keeps every model.",
    "The cat sat on the mat.",
    "Ein Modell wird von Knoten zu Knoten kopiert.",
]


def embeddings(source: str | Path, **options: str) -> torch.Tensor:
    """Mean-pooled sentence embeddings by the model and tokenizer of a folder or repository."""
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    model = AutoModel.from_pretrained(source, **options).eval()
    batch = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))


def test_the_real_minilm_embeds_as_from_its_folder(samples: Samples) -> None:
    served = embeddings(samples.minilm.repo)
    assert served.shape == (len(SENTENCES), 384)
    assert torch.equal(served, embeddings(samples.minilm.folder))


def test_config_tokenizer_and_model_are_those_pushed(tiny_bert: Published) -> None:
    config = AutoConfig.from_pretrained(tiny_bert.repo)
    assert config.model_type == "bert"
    assert config.hidden_size == 32
    served = AutoTokenizer.from_pretrained(tiny_bert.repo)
    local = AutoTokenizer.from_pretrained(tiny_bert.folder)
    text = "The cats sat on a mat, running."
    assert served(text)["input_ids"] == local(text)["input_ids"]
    assert served.get_vocab() == local.get_vocab()
    weights = AutoModel.from_pretrained(tiny_bert.repo).state_dict()
    expected = AutoModel.from_pretrained(tiny_bert.folder).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_a_model_in_shards_is_put_together(samples: Samples) -> None:
    assert torch.equal(embeddings(samples.sharded.repo), embeddings(samples.tiny_bert.folder))


def test_a_commit_id_is_a_revision(tiny_bert: Published) -> None:
    assert torch.equal(
        embeddings(tiny_bert.repo, revision=tiny_bert.commit), embeddings(tiny_bert.folder)
    )


def test_a_bare_id_of_older_code_resolves(tiny_bert: Published) -> None:
    assert AutoConfig.from_pretrained("gpt2").model_type == "bert"
    assert torch.equal(embeddings("gpt2"), embeddings(tiny_bert.folder))


def test_what_is_missing_is_an_error_that_names_it(
    node: Node, branches: dict[str, Published], tiny_bert: Published
) -> None:
    nothing = f"{node.namespace}/nothing"
    with pytest.raises(OSError, match="nothing"):
        AutoConfig.from_pretrained(nothing)
    with pytest.raises(OSError, match="absent"):
        AutoConfig.from_pretrained(tiny_bert.repo, revision="absent")
    with pytest.raises(ValueError, match="model_type"):
        AutoModel.from_pretrained(branches["main"].repo)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        BertModel.from_pretrained(branches["main"].repo)
