"""llama-cpp-python's models with recurrent layers: what a process stored, the next one continues from."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest

KINDS = ["lfm2", "granitehybrid"]


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
    model, store = gguf.write_hybrid(tmp_path / "model.gguf", kind), tmp_path / "store"
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_leaves_the_one_before(tmp_path: Path, kind: str) -> None:
    """llama.cpp cannot take a state back: the context is left for what is stored of the new prompt."""
    model, store = gguf.write_hybrid(tmp_path / "model.gguf", kind), tmp_path / "store"
    shared = tokens(1, 513)
    one, other = shared + tokens(2, 60), shared + tokens(3, 60)
    answers = run(model, store, one, other, one)
    for prompt, answer in zip((one, other, one), answers, strict=True):
        assert answer["generated"] == run(model, None, prompt)[0]["generated"]
    assert [answer["evaluated"] < 100 for answer in answers] == [False, True, True]
