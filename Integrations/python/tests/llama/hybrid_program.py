"""llama-cpp-python with a cache in a store, told on its command line which prompts to complete: JSON, one list of ids each.

    hybrid_program.py MODEL STORE PROMPT...      STORE "-": without one

Prints of each what was generated, with the logits of the last token, and how many tokens were evaluated for it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp
import numpy as np

import kvstore
import kvstore.llama_cpp as adapter


def main() -> None:
    model, path, *prompts = sys.argv[1:]
    adapter.allow_block_copies()
    llama = llama_cpp.Llama(model, n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False, seed=1)
    store = None
    if path != "-":
        store = kvstore.Store(path, capacity="128MiB", host="16MiB")
        llama.set_cache(adapter.KVStoreCache(llama, model, store))
    counted = llama.eval
    evaluated = 0

    def count(tokens: Any) -> None:
        nonlocal evaluated
        evaluated += len(tokens)
        counted(tokens)

    llama.eval = count  # type: ignore[method-assign]
    answers = []
    for prompt in map(json.loads, prompts):
        evaluated = 0
        generated = []
        for token in llama.generate(prompt, temp=0.0) if store is None else completed(llama, prompt):
            generated.append(int(token))
            if len(generated) == 12:
                break
        logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),))
        answers.append({"generated": generated, "evaluated": evaluated, "logits": logits.astype(float).tolist()})
        if store is not None:
            # As create_completion does at its end.
            llama.cache[prompt + generated] = None
    if store is not None:
        store.close()
    print(json.dumps(answers))


def completed(llama: Any, prompt: list[int]) -> Any:
    """As create_completion does at its beginning."""
    try:
        llama.cache[prompt]
    except KeyError:
        pass
    return llama.generate(prompt, temp=0.0)


if __name__ == "__main__":
    main()
