"""`push_to_hub` of transformers and datasets, `PyTorchModelHubMixin`, `HfFileSystem`: there and back."""

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfFileSystem, PyTorchModelHubMixin
from publisher import Account, Publisher, hidden, titles
from samples import SEED, table, write_tiny_bert
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

pytestmark = pytest.mark.usefixtures("upload_path", "clients_at_publisher")

SENTENCE = "the cats sat on a mat, running."


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model with fixed weights, and its tokenizer."""
    folder = write_tiny_bert(tmp_path_factory.mktemp("bert"))
    return BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def hidden_states(model, tokenizer) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**tokenizer(SENTENCE, return_tensors="pt")).last_hidden_state


def test_a_model_and_its_tokenizer(publisher: Publisher, ada: Account, bert) -> None:
    model, tokenizer = bert
    repo = publisher.fresh_name(ada, "bert")
    model.push_to_hub(repo, token=ada.token)
    tokenizer.push_to_hub(repo, token=ada.token, commit_message="Add the tokenizer")
    assert titles(ada, repo) == ["Add the tokenizer", "Upload model", "initial commit"]
    read = (AutoModel.from_pretrained(repo), AutoTokenizer.from_pretrained(repo))
    assert torch.equal(hidden_states(*read), hidden_states(model, tokenizer))
    # What did not change makes no commit.
    model.push_to_hub(repo, token=ada.token)
    assert titles(ada, repo)[0] == "Add the tokenizer"


def test_a_model_in_shards_on_a_branch(publisher: Publisher, ada: Account, bert) -> None:
    model, tokenizer = bert
    repo = publisher.repo(ada)
    for each, options in ((model, {"max_shard_size": "20KB"}), (tokenizer, {})):
        each.push_to_hub(repo, token=ada.token, revision="sharded", **options)
    files = ada.api.list_repo_files(repo, revision="sharded")
    assert sum(name.endswith(".safetensors") for name in files) > 1
    assert ada.api.list_repo_files(repo) == [".gitattributes"]
    read = [cls.from_pretrained(repo, revision="sharded") for cls in (AutoModel, AutoTokenizer)]
    assert torch.equal(hidden_states(*read), hidden_states(model, tokenizer))


def test_a_private_model_is_its_owners(publisher: Publisher, ada: Account, bob: Account, bert) -> None:
    repo = publisher.fresh_name(ada, "private-bert")
    bert[0].push_to_hub(repo, token=ada.token, private=True)
    # Before it is in the cache.
    for token in (bob.token, False):
        with pytest.raises(OSError, match="is not a local folder and is not a valid model identifier"):
            AutoModel.from_pretrained(repo, token=token)
    assert AutoModel.from_pretrained(repo, token=ada.token).config.hidden_size == 32


def test_weights_change_from_commit_to_commit(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada)
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    weights = []
    for seed in (SEED, SEED + 1):
        torch.manual_seed(seed)
        model = BertModel(config)
        commit = model.push_to_hub(repo, token=ada.token, commit_message=f"Seed {seed}")
        weights.append((commit.oid, model.state_dict()))
    for revision, expected in (*weights, ("main", weights[-1][1])):
        read = BertModel.from_pretrained(repo, revision=revision).state_dict()
        assert all(torch.equal(read[name], expected[name]) for name in expected)


def test_a_module_of_ones_own(publisher: Publisher, ada: Account) -> None:
    class Net(torch.nn.Module, PyTorchModelHubMixin):
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(width, 2)

    repo = publisher.fresh_name(ada, "net")
    torch.manual_seed(SEED)
    net = Net(width=6)
    net.push_to_hub(repo, token=ada.token)
    read = Net.from_pretrained(repo, token=ada.token)
    assert torch.equal(read.layer.weight, net.layer.weight)
    assert "model_hub_mixin" in ada.api.model_info(repo).tags


@pytest.mark.parametrize("private", [False, True])
def test_a_data_set_of_several_splits(
    publisher: Publisher, ada: Account, bob: Account, private: bool
) -> None:
    repo = publisher.fresh_name(ada, "rows")
    rows = {"train": table(300, SEED), "test": table(40, SEED + 1)}
    splits = DatasetDict({name: Dataset.from_list(each) for name, each in rows.items()})
    splits.push_to_hub(repo, token=ada.token, private=private)
    assert ada.api.dataset_info(repo).private == private
    # Before it is in the cache.
    if private:
        with pytest.raises(DatasetNotFoundError):
            load_dataset(repo, token=bob.token)
    else:
        assert load_dataset(repo, token=bob.token, split="test").num_rows == 40
    for streaming in (False, True):
        loaded = load_dataset(repo, token=ada.token, streaming=streaming)
        assert {name: list(each) for name, each in loaded.items()} == rows


def test_a_data_set_grows_by_configurations_and_splits(publisher: Publisher, ada: Account) -> None:
    repo = publisher.fresh_name(ada, "rows")
    rows = {name: table(50, seed) for seed, name in enumerate(("train", "test", "other"))}
    data = {name: Dataset.from_list(each) for name, each in rows.items()}
    data["train"].push_to_hub(repo, token=ada.token, num_shards=3)
    data["test"].push_to_hub(repo, split="test", token=ada.token)
    data["other"].push_to_hub(repo, "other", token=ada.token, commit_message="Add a configuration")
    files = ada.api.list_repo_files(repo, repo_type="dataset")
    assert sum(name.startswith("data/train-") for name in files) == 3
    assert list(load_dataset(repo, split="train")) == rows["train"]
    assert list(load_dataset(repo, split="test")) == rows["test"]
    assert list(load_dataset(repo, "other", split="train")) == rows["other"]
    # A split that is pushed anew takes the place of the old one, in fewer files.
    data["other"].push_to_hub(repo, token=ada.token, num_shards=1)
    assert list(load_dataset(repo, split="train", streaming=True)) == rows["other"]
    files = ada.api.list_repo_files(repo, repo_type="dataset")
    assert sum(name.startswith("data/train-") for name in files) == 1


def test_a_stream_is_pushed_to_a_branch(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada, "dataset")
    rows = table(30, SEED)

    def generate(at: list[int]):
        for index in at:
            yield rows[index]

    stream = IterableDataset.from_generator(generate, gen_kwargs={"at": list(range(30))})
    stream.push_to_hub(repo, token=ada.token, revision="streamed")
    assert list(load_dataset(repo, split="train", revision="streamed")) == rows
    assert ada.api.list_repo_files(repo, repo_type="dataset") == [".gitattributes"]


def test_the_file_system_writes_copies_moves_and_removes(publisher: Publisher, ada: Account) -> None:
    repo = publisher.repo(ada, "dataset")
    root = f"datasets/{repo}"
    files = HfFileSystem(endpoint=publisher.url, token=ada.token, skip_instance_cache=True)
    with files.open(f"{root}/a.txt", "w") as file:
        file.write("written\n")
    files.pipe_file(f"{root}/folder/b.bin", b"\0binary")
    files.cp_file(f"{root}/folder/b.bin", f"{root}/copy.bin")
    files.mv(f"{root}/a.txt", f"{root}/moved.txt")
    assert files.cat_file(f"{root}/moved.txt") == b"written\n"
    assert files.cat_file(f"{root}/copy.bin") == b"\0binary"
    files.rm(f"{root}/folder", recursive=True)
    found = {path.removeprefix(f"{root}/") for path in files.find(root, refresh=True)}
    assert found == {".gitattributes", "moved.txt", "copy.bin"}


def test_a_token_in_the_environment_is_enough(
    publisher: Publisher, ada: Account, nobody: Account, bert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", ada.token)
    name = publisher.fresh_name(ada, "by-environment")
    # Without a namespace it is the caller's.
    bert[1].push_to_hub(name.split("/")[1], private=True)
    with hidden():
        nobody.api.repo_info(name)
    assert AutoTokenizer.from_pretrained(name).get_vocab() == bert[1].get_vocab()
