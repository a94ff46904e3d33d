"""Hugging Face transformers: the past_key_values of a prompt, offloaded and restored.

    python transformers_cache.py FOLDER [MODEL]

Without a model a small one with random weights is made. Run it twice: the second run restores what the first one computed,
and its logits are equal bit for bit to those of computing everything.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import kvstore
import kvstore.transformers

torch.manual_seed(1)
if len(sys.argv) > 2:
    model = AutoModelForCausalLM.from_pretrained(sys.argv[2])
else:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1000,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
        )
    )
model.eval()
tokens = [(7 * index) % 1000 for index in range(530)]
tail = 18  # new in this turn

with torch.no_grad(), kvstore.Store(sys.argv[1], capacity="1GiB") as store:
    cache = kvstore.transformers.ModelCache(store, model)
    start = time.perf_counter()
    past, count = cache.restore(tokens)
    print(f"restored {count} of {len(tokens)} tokens")

    # What is not stored of the turns before is computed, and stored; then what is new.
    if count < len(tokens) - tail:
        past = model(torch.tensor([tokens[count:-tail]]), past_key_values=past, use_cache=True).past_key_values
        cache.offload(tokens[:-tail], past)
        store.flush()
    answer = model(torch.tensor([tokens[-tail:]]), past_key_values=past, use_cache=True)
    print(f"first token after {time.perf_counter() - start:.3f} s")

    # The same without a store.
    past = model(torch.tensor([tokens[:-tail]]), use_cache=True).past_key_values
    expected = model(torch.tensor([tokens[-tail:]]), past_key_values=past, use_cache=True)
    assert torch.equal(answer.logits[:, -1], expected.logits[:, -1])
    print("logits equal")
