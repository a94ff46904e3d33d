"""Where blocks lie in vLLM's tensors, for the shapes that its backends have; and blocks moved there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kvstore
from kvstore.vllm.layout import KVLayout, UnsupportedLayoutError, kv_layout
from kvstore.vllm.staging import memory_of

BLOCKS = 6


def caches(kind: str) -> dict[str, torch.Tensor]:
    """KV caches of 3 layers and 6 blocks, in one of the shapes that vLLM has."""
    def one() -> torch.Tensor:
        match kind:
            case "cpu":  # [block, head, token, K and V]
                return torch.zeros(BLOCKS, 4, 16, 128, dtype=torch.bfloat16)
            case "k then v":  # [K or V, block, token, head, dim]
                return torch.zeros(2, BLOCKS, 16, 4, 64, dtype=torch.float16)
            case "permuted":  # the same block in another order of dimensions
                return torch.zeros(BLOCKS, 16, 4, 128, dtype=torch.bfloat16).permute(0, 2, 1, 3)
            case "kernel blocks":  # two blocks of the kernel make one of the pool
                return torch.zeros(2 * BLOCKS, 4, 8, 128, dtype=torch.bfloat16)
            case "latent":  # [block, token, dim]
                return torch.zeros(BLOCKS, 16, 576, dtype=torch.uint8)
        raise AssertionError(kind)

    if kind == "interleaved":  # all layers of a block side by side
        packed = torch.zeros(BLOCKS, 3, 4, 16, 128, dtype=torch.bfloat16)
        return {f"layer{index}": packed[:, index] for index in range(3)}
    return {f"layer{index}": one() for index in range(3)}


KINDS = ["cpu", "k then v", "permuted", "kernel blocks", "latent", "interleaved"]


def block_bytes(kv: dict[str, torch.Tensor], layout: KVLayout, block: int) -> bytes:
    """The bytes of a block over all layers, read through torch instead of addresses."""
    found = b""
    for tensor in kv.values():
        parts = [tensor] if tensor.shape[0] % BLOCKS == 0 else [tensor[0], tensor[1]]
        for part in parts:
            ratio = part.shape[0] // BLOCKS
            piece = part[block * ratio : (block + 1) * ratio]
            order = sorted(range(piece.dim()), key=lambda dim: -piece.stride(dim))
            found += piece.permute(order).contiguous().view(torch.uint8).numpy().tobytes()
    assert len(found) == layout.block_bytes
    return found


def fill(kv: dict[str, torch.Tensor], value: int) -> None:
    for tensor in kv.values():
        tensor.copy_(torch.randint(0, 100, tensor.shape, generator=torch.Generator().manual_seed(value)).to(tensor.dtype))


@pytest.mark.parametrize("staging", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_there_and_back(
    kind: str, staging: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Staging memory for one block at a time.
    monkeypatch.setattr("kvstore.vllm.staging._STAGING_BYTES", 1)
    kv = caches(kind)
    layout = kv_layout(kv, BLOCKS)
    assert len(layout.regions) == (6 if kind == "k then v" else 3)
    identity = kvstore.Identity(
        tokens_per_block=16, region_bytes=tuple(region.byte_count for region in layout.regions), layout=layout.description
    )
    memory = memory_of(layout, kv, staging=staging)
    prompt = kvstore.Prompt(range(48))
    with kvstore.Store(tmp_path / "store", capacity="128MiB", host="32MiB") as store:
        namespace = store.namespace(identity)
        fill(kv, 1)
        saved = [block_bytes(kv, layout, block) for block in (4, 1, 5)]
        assert len(set(saved)) == 3
        assert memory.offload(namespace, prompt, [[4, 1, 5]], 0, memory.ready()) == kvstore.Status.OK
        fill(kv, 2)
        others = [block_bytes(kv, layout, block) for block in (1, 4, 5)]
        assert memory.restore(namespace, prompt, [[0, 3, 2]], 0, 0, 0) == 3
        assert [block_bytes(kv, layout, block) for block in (0, 3, 2)] == saved
        assert [block_bytes(kv, layout, block) for block in (1, 4, 5)] == others
        # One that is not stored ends it.
        assert memory.restore(namespace, kvstore.Prompt(range(64)), [[0, 3, 2, 5]], 0, 0, 0) == 3
        # Layer by layer, and only the last two blocks.
        fill(kv, 3)
        first = block_bytes(kv, layout, 0)
        for part in layout.layer_regions.values():
            assert memory.restore(namespace, prompt, [[2, 3]], 1, *part) == 2
        assert [block_bytes(kv, layout, block) for block in (2, 3)] == saved[1:]
        assert block_bytes(kv, layout, 0) == first


def test_layouts_differ_in_their_description() -> None:
    descriptions = {kind: kv_layout(caches(kind), BLOCKS).description for kind in KINDS}
    # Of an interleaved block only the place is another one, not the bytes.
    assert descriptions.pop("interleaved") == descriptions["cpu"]
    assert len(set(descriptions.values())) == len(descriptions), descriptions


def test_layers_that_share_their_kv_are_stored_once() -> None:
    kv = caches("cpu")
    kv["layer3"] = kv["layer1"]
    layout = kv_layout(kv, BLOCKS)
    assert len(layout.regions) == 3
    assert layout.layer_regions["layer3"] == layout.layer_regions["layer1"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(BLOCKS + 1, 4, 16, 128),
        torch.zeros(3, BLOCKS, 16, 128),
        torch.zeros(4, BLOCKS, 16, 128).transpose(0, 1),
        torch.zeros(BLOCKS, 4, 16, 256)[..., :128],
    ],
)
def test_blocks_that_are_not_in_one_piece_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UnsupportedLayoutError, match="layer"):
        kv_layout({"layer": tensor}, BLOCKS)
