"""Restore what is stored of a prompt, compute and store the rest.

    pip install kvstore-*.whl && python restore.py FOLDER

The first run computes all blocks, the second one none.
"""

import sys

import kvstore

BLOCKS, TOKENS_PER_BLOCK, BLOCK_BYTES = 64, 16, 65536

# A namespace holds what changes the bytes of KV.
identity = kvstore.Identity(
    model_name="example", tokens_per_block=TOKENS_PER_BLOCK, region_bytes=(BLOCK_BYTES,)
)
prompt = kvstore.Prompt(range(BLOCKS * TOKENS_PER_BLOCK))


def compute(block: int) -> bytes:
    """Stands for prefill: the KV of a block is a function of all tokens up to it."""
    return bytes([(block * 31 + 7) % 256]) * BLOCK_BYTES


# A store is a folder that never takes more than its capacity.
with kvstore.Store(sys.argv[1], capacity="1GiB") as store, store.namespace(identity) as namespace:
    memory = [bytearray(BLOCK_BYTES) for _ in range(BLOCKS)]
    match = namespace.match(prompt)  # the longest stored prefix, and a lease on it
    restored = namespace.restore(prompt, memory[: match.blocks]).blocks_done if match.blocks else 0
    store.release(match.lease)
    assert all(memory[block] == compute(block) for block in range(restored))
    print(f"restored {restored} of {BLOCKS} blocks")

    rest = [compute(block) for block in range(restored, BLOCKS)]
    if rest:
        namespace.offload(prompt, rest, first_block=restored)
    store.flush()  # durable from here on
    print(f"computed and stored {len(rest)}")
