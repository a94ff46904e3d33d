"""KV in torch tensors and numpy arrays, offloaded and restored in place.

    python tensors.py FOLDER

A paged engine has one large tensor for each layer, K and V, of which a block of the store is one page. The first run computes,
the second one restores.
"""

import sys

import numpy
import torch

import kvstore

LAYERS, PAGES, TOKENS, HEADS, HEAD_SIZE = 2, 32, 16, 4, 64
page_bytes = TOKENS * HEADS * HEAD_SIZE * 2
identity = kvstore.Identity(
    model_name="example",
    kv_dtype="bf16",
    layout="layer, k|v, page, token, head, element",
    tokens_per_block=TOKENS,
    region_bytes=(page_bytes,) * (2 * LAYERS),  # a block is a page of each layer's K and V
)

# The engine's memory, and the pages that it gave to this prompt, in any order.
kv = torch.zeros((LAYERS, 2, PAGES, TOKENS, HEADS, HEAD_SIZE), dtype=torch.bfloat16)
pages = [7, 3, 30, 12, 0, 21, 9, 18]
prompt = kvstore.Prompt(numpy.arange(len(pages) * TOKENS, dtype=numpy.uint32))  # used as it is


def memory(first: int, last: int) -> list[torch.Tensor]:
    """A piece for each block and region, block by block: views of the pages, no copies."""
    return [kv[layer, part, page] for page in pages[first:last] for layer in range(LAYERS) for part in range(2)]


def compute(block: int) -> torch.Tensor:
    return torch.full((LAYERS, 2, TOKENS, HEADS, HEAD_SIZE), block + 0.5, dtype=torch.bfloat16)


with kvstore.Store(sys.argv[1], capacity="1GiB") as store, store.namespace(identity) as namespace:
    with namespace.match(prompt) as match:
        done = namespace.restore(prompt, memory(0, match.blocks)).blocks_done if match else 0
    print(f"restored {done} of {len(pages)} blocks")
    assert all(torch.equal(kv[:, :, pages[block]], compute(block)) for block in range(done))

    for block in range(done, len(pages)):
        kv[:, :, pages[block]] = compute(block)
    if done < len(pages):
        namespace.offload(prompt, memory(done, len(pages)), first_block=done)
    store.flush()

    # What is stored can be read without a copy, for example as a numpy array.
    with namespace.view(prompt) as view:
        words = numpy.frombuffer(view.region(0, 0), dtype=numpy.uint16)
        print(f"the first page is {int(words[0]):#06x} throughout: {bool((words == words[0]).all())}")
        del words  # before the view ends
