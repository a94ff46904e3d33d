"""kvstore.transformers with real models: small ones with random weights, whose logits are compared bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, open_store

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import kvstore  # noqa: E402
from kvstore.transformers import ModelCache, model_digest  # noqa: E402


def model(seed: int = 1, **fields: Any) -> Any:
    torch.manual_seed(seed)
    shape = dict(vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**shape, "num_key_value_heads": 2, **fields}))
    return made.eval()


TOKENS = [(5 * index) % 99 for index in range(70)]


def logits(made: Any, past: Any, start: int) -> Any:
    with torch.no_grad():
        return made(torch.tensor([TOKENS[start:]]), past_key_values=past, use_cache=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_restored_logits_equal_computed_ones(path: Path, kind: Any) -> None:
    made = model().to(kind)
    with torch.no_grad():
        past = made(torch.tensor([TOKENS[:64]]), use_cache=True).past_key_values
    with open_store(path) as store:
        cache = ModelCache(store, made)
        assert cache.restore(TOKENS) == (None, 0)
        stored = cache.offload(TOKENS[:64], past)
        assert stored and stored.status and stored.blocks_done == 4
        assert cache.offload(TOKENS[:64], past) is None
    with open_store(path) as store:
        restored, count = ModelCache(store, made).restore(torch.tensor([TOKENS]))
        assert count == 64
        found, expected = logits(made, restored, 64), logits(made, past, 64)
        assert torch.equal(found.logits, expected.logits)
        # The next turn adds to what is stored.
        ModelCache(store, made).offload(TOKENS, found.past_key_values)


def test_at_least_one_token_is_left(path: Path) -> None:
    made = model()
    with open_store(path) as store:
        cache = ModelCache(store, made)
        with torch.no_grad():
            cache.offload(TOKENS[:64], made(torch.tensor([TOKENS[:64]]), use_cache=True).past_key_values)
        assert cache.restore(TOKENS[:64])[1] == 48


def test_what_changes_the_kv_changes_the_digest() -> None:
    base = model_digest(model())
    assert base == model_digest(model())
    assert base != model_digest(model(seed=2))
    assert base != model_digest(model().to(torch.bfloat16))
    assert base != model_digest(model(rms_norm_eps=1e-5))
    changed = model()
    with torch.no_grad():
        changed.model.layers[2].self_attn.k_proj.weight[0, 0] += 1
    assert base != model_digest(changed)


def test_what_cannot_be_restored_is_refused(path: Path) -> None:
    config = transformers.MistralConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, sliding_window=8
    )
    with open_store(path) as store:
        with pytest.raises(ValueError, match="full attention"):
            ModelCache(store, transformers.MistralForCausalLM(config))
        cache = ModelCache(store, model())
        with torch.no_grad():
            two = model()(torch.tensor([TOKENS, TOKENS]), use_cache=True).past_key_values
        with pytest.raises(ValueError, match="one sequence"):
            cache.offload(TOKENS, two)
        with pytest.raises(ValueError, match="one row"):
            cache.restore([TOKENS, TOKENS])
        with pytest.raises(TypeError, match="sequence of numbers"):
            kvstore.Prompt([TOKENS, TOKENS])


@pytest.mark.parametrize(
    ("example", "first", "second"),
    [
        ("transformers_cache.py", "restored 0 of 530 tokens", "restored 512 of 530 tokens"),
        ("tensors.py", "restored 0 of 8 blocks", "restored 8 of 8 blocks"),
    ],
)
def test_the_examples_run(tmp_path: Path, example: str, first: str, second: str) -> None:
    for expected in (first, second):
        command = [sys.executable, str(ROOT / "docs/examples" / example), str(tmp_path / "store")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and expected in done.stdout.splitlines(), done.stdout + done.stderr
