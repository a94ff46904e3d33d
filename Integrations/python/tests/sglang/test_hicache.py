"""The storage backend with SGLang's own factory, key chain and host pool, on CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sglang.srt.mem_cache.device_pool_info import KVBufferLayout, KVBuffers, MHABufferInfo
from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig, HiCacheStorageExtraInfo
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from sglang.srt.mem_cache.storage import StorageBackendFactory
from sglang.srt.mem_cache.utils import get_storage_hash_str

import kvstore
from kvstore.sglang import KVStoreHiCache

PAGE = 16
PAGES = 12
LAYERS, HEADS, HEAD_SIZE = 3, 2, 64
LAYOUTS = ["layer_first", "page_first", "page_first_direct"]


def pool(layout: str, seed: int) -> MHATokenToKVPoolHost:
    """SGLang's host pool of 12 pages with random content."""
    shape = (PAGE * PAGES, HEADS, HEAD_SIZE)
    keys = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(LAYERS)]
    values = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(LAYERS)]
    pointers = [torch.tensor([tensor.data_ptr() for tensor in part], dtype=torch.uint64) for part in (keys, values)]
    made = MHATokenToKVPoolHost(
        MHABufferInfo(
            buffers=KVBuffers(
                k=tuple(keys),
                v=tuple(values),
                k_data_ptrs=pointers[0],
                v_data_ptrs=pointers[1],
                layout=KVBufferLayout.NHD,
            ),
            page_size=PAGE,
            head_num=HEADS,
            head_dim=HEAD_SIZE,
            v_head_dim=HEAD_SIZE,
            dtype=torch.bfloat16,
            device=torch.device("cpu"),
        ),
        host_to_device_ratio=1.0,
        host_size=0,
        page_size=PAGE,
        layout=layout,
        pin_memory=False,
        device_capacity_tokens=PAGE * PAGES,
        start_layer=0,
        end_layer=LAYERS - 1,
        host_token_capacity=PAGE * PAGES,
    )
    made.kv_buffer.copy_(torch.randn(made.kv_buffer.shape, generator=torch.Generator().manual_seed(seed)))
    return made


def keys(tokens: list[int], last: str | None = None) -> list[str]:
    """SGLang's own chained page hashes."""
    return get_storage_hash_str(tokens, last, page_size=PAGE)


def indices(*pages: int) -> torch.Tensor:
    return torch.cat([torch.arange(page * PAGE, (page + 1) * PAGE) for page in pages])


def content(host: MHATokenToKVPoolHost, page: int) -> torch.Tensor:
    return host.get_data_page(page * PAGE).clone()


@pytest.fixture
def backend(tmp_path: Path, published: object) -> Any:
    """Makes backends as SGLang does, through its factory, and closes them; a setting that is None is not given."""
    made: list[KVStoreHiCache] = []

    def make(host: MHATokenToKVPoolHost, *, rank: int = 0, mla: bool = False, **settings: Any) -> KVStoreHiCache:
        config = HiCacheStorageConfig(
            tp_rank=rank,
            tp_size=2,
            pp_rank=0,
            pp_size=1,
            attn_cp_rank=0,
            attn_cp_size=1,
            is_mla_model=mla,
            enable_storage_metrics=False,
            is_page_first_layout=host.layout == "page_first",
            model_name="test/model",
            extra_config={
                "backend_name": "kvstore",
                "module_path": "kvstore.sglang",
                "class_name": "KVStoreHiCache",
                "interface_v1": 1,
                "path": str(tmp_path / "store"),
                "disk_bytes": "128MiB",
                "host_bytes": "16MiB",
                "weights_digest": "11" * 32,
                **settings,
            },
        )
        config.extra_config = {name: value for name, value in config.extra_config.items() if value is not None}
        storage = StorageBackendFactory.create_backend("dynamic", config, host)
        assert isinstance(storage, KVStoreHiCache)
        storage.register_mem_pool_host(host)
        storage.on_host_pools_registered()
        made.append(storage)
        return storage

    yield make
    for storage in made:
        storage.close()


Make = Callable[..., KVStoreHiCache]


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_survive_a_restart(backend: Make, layout: str, chained: bool) -> None:
    host = pool(layout, seed=1)
    tokens = list(range(6 * PAGE))
    chain = keys(tokens)
    first = HiCacheStorageExtraInfo(prefix_keys=[] if chained else None)
    behind = HiCacheStorageExtraInfo(prefix_keys=chain[:4] if chained else None)
    storage = backend(host)
    assert storage.batch_exists(chain, first) == 0
    assert storage.batch_set_v1(chain[:4], indices(7, 2, 9, 0), first) == [True] * 4
    assert storage.batch_set_v1(chain[4:], indices(5, 1), behind) == [True] * 2
    assert storage.batch_exists(chain, first) == 6
    storage.close()

    other = pool(layout, seed=2)
    before = [content(other, page) for page in range(PAGES)]
    again = backend(other)
    more = keys([*tokens, *range(1000, 1000 + PAGE)])
    assert again.batch_exists(more, first) == 6
    assert again.batch_exists(more[4:], behind) == 2
    assert again.batch_get_v1(chain[:4], indices(3, 4, 8, 11), first) == [True] * 4
    assert again.batch_get_v1(more[4:], indices(6, 10, 0), behind) == [True, True, False]
    for target, source in {3: 7, 4: 2, 8: 9, 11: 0, 6: 5, 10: 1}.items():
        assert torch.equal(content(other, target), content(host, source))
    for untouched in (1, 2, 5, 7, 9):
        assert torch.equal(content(other, untouched), before[untouched])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_as_tensors(backend: Make, layout: str) -> None:
    """What SGLang's controller does without interface_v1: flat tensors, a page each."""
    host = pool(layout, seed=1)
    storage = backend(host, interface_v1=0)
    chain = keys(list(range(3 * PAGE)))
    assert storage.batch_set(chain, [host.get_data_page(page * PAGE) for page in (2, 0, 1)]) is True
    assert (storage.batch_exists(chain), storage.exists(chain[1])) == (3, True)
    other = pool(layout, seed=2)
    targets = [other.get_dummy_flat_data_page() for _ in range(4)]
    found = storage.batch_get([*chain, keys(list(range(50, 50 + PAGE)))[0]], targets)
    assert found[3] is None
    for page, data in enumerate(found[:3]):
        other.set_from_flat_data_page(page * PAGE, data)
    for target, source in {0: 2, 1: 0, 2: 1}.items():
        assert torch.equal(content(other, target), content(host, source))


def test_pages_stand_alone_without_interface_v1(backend: Make) -> None:
    """There SGLang tells the keys before a page on look-ups, and not when it stores."""
    host = pool("page_first", seed=1)
    storage = backend(host, interface_v1=0)
    chain = keys(list(range(6 * PAGE)))
    assert storage.batch_set(chain, [host.get_data_page(page * PAGE) for page in range(6)]) is True
    assert storage.batch_exists(chain, HiCacheStorageExtraInfo(prefix_keys=None)) == 6
    assert storage.batch_exists(chain[2:], HiCacheStorageExtraInfo(prefix_keys=chain[:2])) == 4


def test_ranks_layouts_and_weights_share_nothing(backend: Make) -> None:
    host = pool("page_first", seed=1)
    chain = keys(list(range(2 * PAGE)))
    storage = backend(host)
    storage.batch_set_v1(chain, indices(0, 1))
    assert storage.batch_exists(chain) == 2
    assert backend(host).batch_exists(chain) == 2
    assert backend(host, rank=1).batch_exists(chain) == 0
    assert backend(pool("layer_first", seed=1)).batch_exists(chain) == 0
    assert backend(pool("page_first_direct", seed=1)).batch_exists(chain) == 0
    assert backend(host, kv_cache_dtype="fp8_e4m3").batch_exists(chain) == 0
    assert backend(host, weights_digest="22" * 32).batch_exists(chain) == 0


def test_weights_are_told_by_their_files(backend: Make, tmp_path: Path) -> None:
    """Of one that was changed since this process began, nobody can tell what was loaded."""
    host = pool("page_first", seed=1)
    chain = keys(list(range(2 * PAGE)))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    files = {"weights_digest": None, "model_path": str(tmp_path)}
    storage = backend(host, **files)
    storage.batch_set_v1(chain, indices(0, 1))
    assert storage.batch_exists(chain) == 2
    assert backend(host, **files).batch_exists(chain) == 0


def test_no_prefix_is_said_in_two_ways(backend: Make) -> None:
    """SGLang looks up the first pages with None for the keys before them, and stores them with an empty list."""
    host = pool("page_first", seed=1)
    chain = keys(list(range(6 * PAGE)))
    storage = backend(host)
    first, behind = HiCacheStorageExtraInfo(prefix_keys=[]), HiCacheStorageExtraInfo(prefix_keys=chain[:4])
    assert storage.batch_set_v1(chain[:4], indices(0, 1, 2, 3), first) == [True] * 4
    assert storage.batch_set_v1(chain[4:], indices(4, 5), behind) == [True] * 2
    nothing = HiCacheStorageExtraInfo(prefix_keys=None)
    assert storage.batch_exists(chain, nothing) == 6
    assert storage.batch_exists([*chain[:3], *keys(list(range(90, 90 + PAGE)))], nothing) == 3
    # In batches, of which only the first begins with the prompt.
    assert storage.batch_get_v1(chain[:2], indices(6, 7), nothing) == [True] * 2
    assert storage.batch_get_v1(chain[2:], indices(8, 9, 10, 11), nothing) == [True] * 4
    assert torch.equal(content(host, 8), content(host, 2))


def test_latent_kv_is_the_same_on_all_ranks(backend: Make) -> None:
    host = pool("page_first", seed=1)
    chain = keys(list(range(2 * PAGE)))
    backend(host, mla=True).batch_set_v1(chain, indices(0, 1))
    assert backend(host, rank=1, mla=True).batch_exists(chain) == 2


def test_a_page_behind_a_gap_is_not_stored(backend: Make) -> None:
    host = pool("page_first", seed=1)
    chain = keys(list(range(4 * PAGE)))
    storage = backend(host)
    behind = HiCacheStorageExtraInfo(prefix_keys=chain[:2])
    assert storage.batch_set_v1(chain[2:], indices(0, 1), behind) == [False, False]
    assert storage.batch_exists(chain[2:], behind) == 0


def test_damaged_pages_are_not_found(backend: Make, tmp_path: Path) -> None:
    host = pool("page_first_direct", seed=1)
    chain = keys(list(range(4 * PAGE)))
    info = HiCacheStorageExtraInfo(prefix_keys=[])
    storage = backend(host)
    storage.batch_set_v1(chain, indices(0, 1, 2, 3), info)
    storage.close()
    marked = content(host, 2).view(torch.uint8).numpy().tobytes()[:4096]
    places = 0
    for file in (tmp_path / "store").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        at = data.find(marked)
        if at >= 0:
            with file.open("r+b") as opened:
                opened.seek(at + 100)
                opened.write(bytes([data[at + 100] ^ 1]))
            places += 1
    assert places == 1
    again = backend(pool("page_first_direct", seed=2))
    assert again.batch_get_v1(chain, indices(4, 5, 6, 7), info) == [True, True, False, False]
    assert again.batch_exists(chain, info) == 2


def test_clear(backend: Make) -> None:
    storage = backend(pool("page_first", seed=1))
    chain = keys(list(range(2 * PAGE)))
    storage.batch_set_v1(chain, indices(0, 1))
    assert storage.clear() is True
    assert storage.batch_exists(chain) == 0


def test_without_a_store_nothing_is_found_and_nothing_fails(backend: Make, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    storage = backend(pool("page_first", seed=1))
    chain = keys(list(range(2 * PAGE)))
    assert storage.batch_set_v1(chain, indices(0, 1)) == [False, False]
    assert storage.batch_get_v1(chain, indices(0, 1)) == [False, False]
    assert storage.batch_exists(chain) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"path": ""}, '"path"'), ({"path": 7}, "path is 7"), ({"weights_digest": None, "model_path": "/nowhere"}, "weight files")],
)
def test_bad_settings(backend: Make, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        backend(pool("page_first", seed=1), **settings)


def test_quantised_bytes_need_a_name(backend: Make) -> None:
    host = pool("page_first", seed=1)
    host.dtype = torch.uint8
    with pytest.raises(ValueError, match="kv_cache_dtype"):
        backend(host)
    assert kvstore.version()
