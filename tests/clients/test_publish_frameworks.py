"""`push_to_hub` of transformers and datasets, `PyTorchModelHubMixin`, `HfFileSystem`: there and back."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfFileSystem, ModelCard, PyTorchModelHubMixin
from publisher import Account, Publisher, hidden, titles
from samples import SEED, table, write_tiny_bert
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainingArguments,
)

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


# A trainer switches them off, and then on again.
quiet = pytest.mark.filterwarnings("ignore:Cannot enable progress bars")


def trainer(bert, folder: Path, repo: str, account: Account, **options) -> Trainer:
    """Two steps of teaching the tiny model to tell two sentences apart."""
    model, tokenizer = bert
    torch.manual_seed(SEED)
    inner = BertForSequenceClassification(model.config)
    rows = [{**tokenizer(text), "labels": at} for at, text in enumerate((SENTENCE, "a dog ran."))]
    arguments = TrainingArguments(
        output_dir=str(folder),
        push_to_hub=True,
        hub_model_id=repo,
        hub_token=account.token,
        max_steps=2,
        per_device_train_batch_size=1,
        use_cpu=True,
        seed=SEED,
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    return Trainer(inner, arguments, train_dataset=rows, processing_class=tokenizer)


def same_weights(made: Trainer, repo: str, **options: str) -> None:
    """What was pushed loads as what was made."""
    read = AutoModelForSequenceClassification.from_pretrained(repo, **options).state_dict()
    expected = made.model.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)


@quiet
def test_a_trainer_pushes_what_it_made(publisher: Publisher, ada: Account, bert, tmp_path: Path) -> None:
    repo = publisher.fresh_name(ada, "trained")
    made = trainer(bert, tmp_path / "out", repo, ada, save_strategy="no", hub_private_repo=True)
    # It is made at once, whatever becomes of the training.
    assert ada.api.model_info(repo).private
    made.train()
    commit = made.push_to_hub(token=ada.token, language="en", tags="made-here")
    assert commit.oid == ada.api.model_info(repo).sha
    assert titles(ada, repo) == ["End of training", "initial commit"]
    same_weights(made, repo, token=ada.token)
    assert AutoTokenizer.from_pretrained(repo, token=ada.token).get_vocab() == bert[1].get_vocab()
    card = ModelCard.load(repo, token=ada.token)
    assert card.data.language == ["en"]
    assert {"generated_from_trainer", "made-here"} <= set(ada.api.model_info(repo).tags)
    assert "training_args.bin" in ada.api.list_repo_files(repo)


@quiet
@pytest.mark.parametrize("strategy", ["every_save", "checkpoint"])
def test_a_trainer_pushes_while_it_trains(
    publisher: Publisher, ada: Account, bert, tmp_path: Path, strategy: str
) -> None:
    repo = publisher.fresh_name(ada, "trained")
    options = {"save_strategy": "steps", "save_steps": 2, "hub_strategy": strategy}
    made = trainer(bert, tmp_path / "out", repo, ada, **options)
    made.train()
    # Sent by a thread beside: an error of one is seen nowhere else.
    assert [job.exception() for job in made.push_in_progress.jobs] == [None] * (1 + (strategy == "checkpoint"))
    made.push_to_hub(token=ada.token)
    pushed = ["Training in progress, step 2", "initial commit"]
    if strategy == "checkpoint":
        pushed.insert(0, "Training in progress, step 2, checkpoint")
        # With all that it takes to go on from there.
        files = {path.name for path in (tmp_path / "out" / "checkpoint-2").iterdir()}
        found = ada.api.list_repo_files(repo)
        assert {f"last-checkpoint/{name}" for name in files} <= set(found)
        same_weights(made, repo, subfolder="last-checkpoint")
    assert titles(ada, repo) == ["End of training", *pushed]
    same_weights(made, repo)
    assert "generated_from_trainer" in ada.api.model_info(repo).tags


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
