"""llama-cpp-python's models with recurrent layers: what a process stored, the next one continues from."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from damage import flip

KINDS = ["lfm2", "granitehybrid", "mamba", "mamba2", "rwkv7"]
COMMAND = Path(os.environ.get("KVSTORE_PREFIX") or Path(__file__).resolve().parents[4] / ".build-install") / "bin/kvstore"


def run(model: Path, store: Path | None, *prompts: list[int]) -> list[dict[str, Any]]:
    program = Path(__file__).with_name("hybrid_program.py")
    words = [sys.executable, str(program), str(model), str(store or "-"), *map(json.dumps, prompts)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 500) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_goes_on_in_another_process(tmp_path: Path, kind: str) -> None:
    model, store = gguf.write_kind(tmp_path / "model.gguf", kind), tmp_path / "store"
    prompt = tokens(1, 700)
    (first,) = run(model, store, prompt)
    assert first["evaluated"] >= len(prompt)
    turn = prompt + first["generated"] + tokens(2, 100)
    again, following, unknown = run(model, store, prompt, turn, tokens(3, 300))
    # Blocks of 256 tokens: a state is stored at the last end of one before the prompt's last token.
    assert again["generated"] == first["generated"]
    assert len(prompt) - 512 <= again["evaluated"] < len(prompt) - 512 + 12
    assert again["logits"] == first["logits"]
    # The next turn, in the same process and in another one.
    (computed,) = run(model, None, turn)
    (restored,) = run(model, store, turn)
    assert restored["generated"] == following["generated"] == computed["generated"]
    assert restored["evaluated"] < 512
    assert unknown["evaluated"] >= 300
    # The state behind the last end of a block holds what came before: without it the answer would be another one.
    (changed,) = run(model, None, tokens(4, 256) + prompt[256:])
    assert changed["logits"] != first["logits"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_leaves_the_one_before(tmp_path: Path, kind: str) -> None:
    """llama.cpp cannot take a state back: the context is left for what is stored of the new prompt."""
    model, store = gguf.write_kind(tmp_path / "model.gguf", kind), tmp_path / "store"
    shared = tokens(1, 513)
    one, other = shared + tokens(2, 60), shared + tokens(3, 60)
    answers = run(model, store, one, other, one)
    for prompt, answer in zip((one, other, one), answers, strict=True):
        assert answer["generated"] == run(model, None, prompt)[0]["generated"]
    assert [answer["evaluated"] < 100 for answer in answers] == [False, True, True]


def inspect(what: str, *words: object) -> Any:
    said = subprocess.run([COMMAND, "inspect", what, *map(str, words), "--json"], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def states(store: Path) -> list[str]:
    """The keys of the states that are stored, oldest first."""
    sections = {space["id"] for space in inspect("namespaces", store)["namespaces"] if space["identity"]["side_section"]}
    runs = [run for space in inspect("tree", store)["namespaces"] if space["namespace"] in sections for run in space["runs"]]
    return [run["last_block_key"] for run in sorted(runs, key=lambda run: run["created_at"])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_lost(tmp_path: Path, kind: str) -> None:
    """What is stored is taken up to the state before, and the lost one is stored again."""
    model, store = gguf.write_kind(tmp_path / "model.gguf", kind), tmp_path / "store"
    prompt = tokens(1, 700)
    turn = prompt + tokens(2, 600)
    run(model, store, prompt)
    (first,) = run(model, store, turn)
    kept = states(store)
    assert len(kept) == 2
    subprocess.run([COMMAND, "forget", store, kept[-1]], check=True, capture_output=True)
    (again,) = run(model, store, turn)
    assert again["generated"] == first["generated"]
    assert len(turn) - 512 <= again["evaluated"] < len(turn) - 512 + 12
    (healed,) = run(model, store, turn)
    assert healed["generated"] == first["generated"] and healed["evaluated"] < 256 + 12


@pytest.mark.parametrize("kind", KINDS)
def test_damage(tmp_path: Path, kind: str) -> None:
    """States and blocks that are damaged are computed, and the answer is the same."""
    model, store = gguf.write_kind(tmp_path / "model.gguf", kind), tmp_path / "store"
    prompt = tokens(1, 700)
    (first,) = run(model, store, prompt)
    assert flip(store) > 0
    (again,) = run(model, store, prompt)
    assert (again["generated"], again["logits"]) == (first["generated"], first["logits"])
    assert again["evaluated"] >= len(prompt)
