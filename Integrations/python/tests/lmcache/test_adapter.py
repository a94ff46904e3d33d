"""The adapter, made by LMCache's own factory, with LMCache's keys, memory objects and events; and LMCache's own benchmark of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lmcache.cli.commands.bench.l2_adapter_bench.data import make_memory_objects, wait_eventfd
from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import get_type_name_for_config  # noqa: F401
from lmcache.v1.distributed.l2_adapters.plugin_l2_adapter import PluginL2AdapterConfig

import kvstore

SIZE, COUNT = 256 << 10, 6
LAYOUT = {0: MemoryLayoutDesc(shapes=[torch.Size([SIZE])], dtypes=[torch.uint8])}
WEIGHTS = "11" * 32


def specification(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "type": "plugin",
        "module_path": "kvstore.lmcache",
        "class_name": "KVStoreL2Adapter",
        "adapter_params": {
            "path": str(folder),
            "disk_bytes": "256MiB",
            "host_bytes": "32MiB",
            "weights_digest": WEIGHTS,
            **more,
        },
    }


Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Any] = []

    def adapter(**more: Any) -> Any:
        config = PluginL2AdapterConfig.from_dict(specification(tmp_path / "store", **more))
        made.append(create_l2_adapter(config))
        return made[-1]

    yield adapter
    for one in made:
        one.close()


def keys(first: int = 0, count: int = COUNT, **more: Any) -> list[ObjectKey]:
    fields = {"model_name": "test/model", "kv_rank": 0, **more}
    return [ObjectKey(chunk_hash=bytes([index + 1]) * 32, **fields) for index in range(first, first + count)]


def objects(fill: int, count: int = COUNT) -> tuple[torch.Tensor, list[Any]]:
    buffer = torch.empty(count * SIZE, dtype=torch.uint8)
    return buffer, make_memory_objects(buffer, count, SIZE, 0, fill_offset=fill)


def store(adapter: Any, which: list[ObjectKey], fill: int = 1) -> torch.Tensor:
    buffer, memory = objects(fill, len(which))
    task = adapter.submit_store_task(which, memory)
    assert wait_eventfd(adapter.get_store_event_fd())
    assert adapter.pop_completed_store_tasks()[task].is_successful()
    return buffer


def found(adapter: Any, which: list[ObjectKey], layouts: Any = None) -> list[int]:
    task = adapter.submit_lookup_and_lock_task(which, LAYOUT if layouts is None else layouts)
    assert wait_eventfd(adapter.get_lookup_and_lock_event_fd())
    bitmap = adapter.query_lookup_and_lock_result(task)
    # Once only.
    assert adapter.query_lookup_and_lock_result(task) is None
    return list(bitmap.get_indices_list())


def load(adapter: Any, which: list[ObjectKey]) -> tuple[torch.Tensor, list[int]]:
    buffer, memory = objects(99, len(which))
    task = adapter.submit_load_task(which, memory)
    assert wait_eventfd(adapter.get_load_event_fd())
    return buffer, list(adapter.query_load_result(task).get_indices_list())


def test_objects_survive_a_restart(make: Make) -> None:
    first = make()
    expected = store(first, keys())
    assert found(first, keys(2, COUNT)) == [0, 1, 2, 3]
    first.submit_unlock(keys(2, COUNT))
    first.close()
    again = make()
    assert found(again, keys()) == list(range(COUNT))
    loaded, which = load(again, keys())
    assert which == list(range(COUNT)) and torch.equal(loaded, expected)


@pytest.mark.parametrize(
    "other", [{"model_name": "other"}, {"kv_rank": 1}, {"object_group_id": 1}, {"cache_salt": "tenant"}]
)
def test_keys_that_differ_in_any_field_are_others(make: Make, other: dict[str, Any]) -> None:
    adapter = make()
    store(adapter, keys())
    layouts = {**LAYOUT, 1: LAYOUT[0]}
    assert found(adapter, keys(**other), layouts) == []
    store(adapter, keys(**other), fill=50)
    assert load(adapter, keys())[0][0] != load(adapter, keys(**other))[0][0]


def test_other_weights_of_the_same_name_share_nothing(make: Make) -> None:
    store(make(), keys())
    changed = make(weights_digest="22" * 32)
    assert found(changed, keys()) == [] and load(changed, keys())[1] == []


def test_other_dtypes_share_nothing(make: Make) -> None:
    adapter = make()
    store(adapter, keys())
    halves = {0: MemoryLayoutDesc(shapes=[torch.Size([SIZE // 2])], dtypes=[torch.bfloat16])}
    assert found(adapter, keys(), halves) == []


def test_locks_are_leases(make: Make, tmp_path: Path) -> None:
    adapter = make()
    store(adapter, keys())
    with kvstore.Store(tmp_path / "store", capacity="256MiB", host="32MiB") as outside:
        found(adapter, keys())
        found(adapter, keys(0, 2))
        assert outside.stats()["leases_active"] == COUNT + 2
        adapter.submit_unlock(keys())
        assert outside.stats()["leases_active"] == 2
        adapter.submit_unlock(keys(0, 2))
        # Once more than they were locked.
        adapter.submit_unlock(keys(0, 2))
        assert outside.stats()["leases_active"] == 0


def test_damaged_objects_are_not_loaded(make: Make, tmp_path: Path) -> None:
    first = make()
    buffer, memory = objects(1)
    generator = torch.Generator().manual_seed(1)
    buffer.copy_(torch.randint(0, 256, buffer.shape, generator=generator, dtype=torch.uint8))
    first.submit_store_task(keys(), memory)
    assert wait_eventfd(first.get_store_event_fd())
    first.close()
    marked = buffer[2 * SIZE : 2 * SIZE + 4096].numpy().tobytes()
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
    again = make()
    assert load(again, keys())[1] == [0, 1, 3, 4, 5]
    assert found(again, keys()) == [0, 1, 3, 4, 5]


def test_deleted_objects_are_gone(make: Make) -> None:
    adapter = make()
    store(adapter, keys())
    assert adapter.get_usage().total_bytes_used == COUNT * SIZE
    adapter.delete(keys(0, 2))
    assert found(adapter, keys()) == [2, 3, 4, 5]
    assert adapter.get_usage().total_bytes_used == (COUNT - 2) * SIZE


def test_without_a_store_nothing_is_found_and_nothing_fails(make: Make, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    adapter = make()
    assert found(adapter, keys()) == [] and load(adapter, keys())[1] == []
    assert adapter.report_status()["is_healthy"] is False


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights_digest": ""}, "kvstore weights-digest"),
        ({"weights_digest": "00"}, "32 bytes in hexadecimal"),
        ({"path": ""}, "folder of the store"),
        ({"disk": 1}, "unknown setting disk"),
        ({"threads": "many"}, "threads is 'many'"),
    ],
)
def test_bad_settings(make: Make, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**settings)


def test_lmcache_s_own_benchmark(tmp_path: Path) -> None:
    """`lmcache bench l2` stores, looks up and loads, and compares what came back."""
    program = "from lmcache.cli.main import main; main()"
    words = ["bench", "l2", "--l2-adapter", json.dumps(specification(tmp_path / "store"))]
    words += ["--num-keys", "16", "--rounds", "2", "--no-skip-verify", "--lookup-max-hit-rate", "1.0"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISMATCH" not in done.stdout, done.stdout
    print(done.stdout)
