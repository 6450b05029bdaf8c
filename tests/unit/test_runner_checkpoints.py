"""Which files of a repository are a checkpoint."""

import json
from pathlib import Path

import pytest

from evaljob.names import Reason
from evaljob_runner.checkpoints import hashed, model_files
from evaljob_runner.errors import Fatal

SMALL = ["config.json", "generation_config.json", "tokenizer.json", "merges.txt", "chat_template.jinja"]
SAFE = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]


def test_weights_come_once() -> None:
    """A repository of Mistral's, with everything that people put beside a model."""
    others = [
        "README.md",
        ".gitattributes",
        "modeling_own.py",
        "tf_model.h5",
        "training_args.bin",
        "optimizer.bin",
    ]
    again = ["consolidated.safetensors", "pytorch_model.bin", "onnx/model.onnx", "original/config.json"]
    found = model_files([*SMALL, *SAFE, *others, *again, "gguf/model.gguf", "v2/model.safetensors"])
    assert sorted(found) == sorted(SMALL + SAFE)


def test_pickles_only_where_there_is_nothing_else() -> None:
    pickled = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    index = ["pytorch_model.bin.index.json"]
    assert sorted(model_files([*SMALL, *pickled, *index])) == sorted(SMALL + pickled + index)
    assert model_files(["config.json", "consolidated.safetensors"]) == [
        "config.json",
        "consolidated.safetensors",
    ]


def test_without_weights_the_small_files_are_left() -> None:
    assert model_files([*SMALL, "model.safetensors"], weights=False) == SMALL


def test_a_template_behind_a_link_is_read_by_its_name(tmp_path: Path) -> None:
    """A hub's cache on a claim: every file is a link to a blob that is named after its hash."""
    (tmp_path / "blob").write_text("{{ strftime_now('%Y') }}")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    assert not hashed(tmp_path / "m", tmp_path, "m").dated
    (tmp_path / "m" / "chat_template.jinja").symlink_to(tmp_path / "blob")
    assert hashed(tmp_path / "m", tmp_path, "m").dated


def test_a_copy_that_was_broken_off_is_refused(tmp_path: Path) -> None:
    """Of a claim or of a cache without a list of files: the index knows what belongs to a model."""
    (tmp_path / "config.json").write_text("{}")
    parts = {f"layer.{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (tmp_path / parts["layer.1"]).write_bytes(bytes(8))
    with pytest.raises(Fatal, match=r"m: 1 of 2 files .* model-00002-of-00002.safetensors: fetch") as caught:
        hashed(tmp_path, tmp_path, "m")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND
    (tmp_path / parts["layer.2"]).write_bytes(bytes(8))
    assert hashed(tmp_path, tmp_path, "m").kind == "sha256"
