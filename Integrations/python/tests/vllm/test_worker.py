"""The worker's side on a KV cache of its own, told what to do as the scheduler tells it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kvstore
from kvstore.moving import Operation
from kvstore.vllm.layout import kv_layout
from kvstore.vllm.metadata import RequestUpdate, StepMetadata, Tenant, Transfer
from kvstore.vllm.options import Options
from kvstore.vllm.staging import memory_of
from kvstore.vllm.watch import Watch
from kvstore.vllm.worker import WorkerSide

BLOCKS, BLOCK = 10, 16
RANK = (0, 0)


class Worker:
    """A worker with a KV cache of a few layers and ten blocks."""

    def __init__(self, path: Path, *, layers: int = 2, **settings: Any) -> None:
        self.kv = {f"layer{index}": torch.zeros(BLOCKS, 2, BLOCK, 128, dtype=torch.bfloat16) for index in range(layers)}
        layout = kv_layout(self.kv, BLOCKS)
        identity = kvstore.Identity(
            tokens_per_block=BLOCK, region_bytes=tuple(region.byte_count for region in layout.regions)
        )
        options = Options.of({"path": str(path), "disk_bytes": "128MiB", "host_bytes": "16MiB", **settings})
        self.watch = Watch()
        self.side = WorkerSide(options, RANK, identity, layout, memory_of(layout, self.kv), self.watch)

    def fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for tensor in self.kv.values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))

    def block(self, block_id: int) -> list[torch.Tensor]:
        return [tensor[block_id].clone() for tensor in self.kv.values()]

    def step(self, *, layers: bool = False, **work: Any) -> tuple[set[str], set[str], set[int]]:
        """One step, as vLLM takes it; waits until loads and saves have ended."""
        metadata = StepMetadata(**work)
        self.side.preempt(metadata)
        self.side.load(metadata)
        if layers:
            for name in self.kv:
                self.side.wait_for_layer(name)
        self.side.save(metadata)
        saved: set[str] = set()
        loaded: set[str] = set()
        failed: set[int] = set()
        expected = (
            len(metadata.finishing),
            len(metadata.loads) if self.side._options.load == "async" else 0,
        )
        deadline = time.monotonic() + 60
        while (len(saved), len(loaded)) != expected and time.monotonic() < deadline:
            one, other = self.side.finished()
            saved |= one
            loaded |= other
        failed |= self.side.failed_blocks()
        return saved, loaded, failed


def update(name: str, tokens: range, block_ids: list[int], *, first_token: int = 0, first_block: int = 0) -> RequestUpdate:
    return RequestUpdate(name, Tenant(), first_token, array("I", tokens), first_block, block_ids)


@pytest.fixture(params=["async", "sync", "layerwise"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path / "store", load=request.param)
    yield made
    made.side.close()


def save(worker: Worker, name: str, tokens: range, block_ids: list[int]) -> None:
    blocks = len(tokens) // BLOCK
    saved, _, _ = worker.step(
        updates=[update(name, tokens, block_ids)], saves=[Transfer(name, 0, blocks)], finishing={name}
    )
    assert saved == {name}


def test_blocks_come_back(worker: Worker) -> None:
    worker.fill(1)
    save(worker, "a", range(48), [3, 7, 1])
    expected = [worker.block(block) for block in (7, 1)]
    worker.fill(2)
    others = {block: worker.block(block) for block in (0, 1, 3, 4, 7, 8, 9)}
    _, _, failed = worker.step(
        layers=True, updates=[update("b", range(48), [0, 5, 6])], loads=[Transfer("b", 1, 2)]
    )
    assert not failed
    for block, content in zip((5, 6), expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(worker.block(block), content, strict=True))
    for block, content in others.items():
        assert all(torch.equal(one, other) for one, other in zip(worker.block(block), content, strict=True))


def test_layers_that_wait_are_read_together(tmp_path: Path) -> None:
    layers = 32
    worker = Worker(tmp_path / "store", layers=layers, load="layerwise")
    worker.fill(1)
    save(worker, "a", range(128), list(range(1, 9)))
    expected = [worker.block(block) for block in range(1, 9)]
    worker.side.close()
    # One that has nothing in memory.
    worker = Worker(tmp_path / "store", layers=layers, load="layerwise")
    one_by_one = 8 * layers * (4096 + 2 * BLOCK * 128 * 2)

    def bytes_read(number: int) -> int:
        before = worker.side._store.stats()["disk_bytes_read"]
        worker.fill(2)
        _, _, failed = worker.step(
            layers=True,
            updates=[update(f"b{number}", range(128), list(range(1, 9)))],
            loads=[Transfer(f"b{number}", 0, 8)],
        )
        assert not failed
        for block, content in zip(range(1, 9), expected, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(worker.block(block), content, strict=True))
        return worker.side._store.stats()["disk_bytes_read"] - before

    # On a busy machine each layer may have come before the next one is asked for.
    assert any(bytes_read(number) < 0.9 * one_by_one for number in range(20))
    worker.side.close()


def test_layers_are_loaded_where_the_library_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(tmp_path / "store", load="layerwise")
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    # What an operation is whose start was refused.
    refused = Operation.__new__(Operation)
    refused._handle, refused._result = None, kvstore.Transfer(kvstore.Status.BUSY, 0, 0, 0, 0)
    monkeypatch.setattr(worker.side._memory, "start_restore", lambda *_: refused)
    assert is_stored(worker, range(32), [3, 7])
    worker.side.close()


def test_nothing_runs_on_the_core_of_the_thread_that_computes(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=bound_worker, args=(tmp_path / "store", answers))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    for mode, cores in answers.get().items():
        # Writer, follower and the pools' threads.
        assert len(cores) >= 4 and all(found == os.sched_getaffinity(0) for found in cores), (mode, cores)


def bound_worker(path: Path, answers: Any) -> None:
    """A worker process, whose first thread is bound to a core as vLLM does it; answers where the others run."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = set(os.listdir("/proc/self/task"))
    found = {}
    for mode in ("layerwise", "sync", "async"):
        worker = Worker(path, load=mode)
        worker.fill(1)
        save(worker, "a", range(32), [3, 7])
        worker.step(layers=True, updates=[update("b", range(32), [0, 5])], loads=[Transfer("b", 0, 2)])
        since = set(os.listdir("/proc/self/task")) - before
        found[mode] = [os.sched_getaffinity(int(thread)) for thread in since]
        worker.side.close()
    answers.put(found)


def test_blocks_that_are_not_there_are_named(worker: Worker) -> None:
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    _, _, failed = worker.step(
        layers=True, updates=[update("b", range(64), [0, 5, 6, 2])], loads=[Transfer("b", 0, 4)]
    )
    assert failed == {6, 2}


def test_a_lease_is_released_by_the_worker(worker: Worker, tmp_path: Path) -> None:
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    with kvstore.Store(tmp_path / "store", capacity="128MiB", host="16MiB") as store:
        store.flush()
        namespace = store.namespace(worker.side.identity)
        lease = namespace.match(kvstore.Prompt(range(32)), lease_seconds=600).lease
        assert store.stats()["leases_active"] == 1
        worker.step(
            layers=True,
            updates=[update("b", range(32), [0, 5])],
            loads=[Transfer("b", 0, 2, leases={RANK: (lease,), (0, 1): (12345,)})],
        )
        assert store.stats()["leases_active"] == 0


def test_what_the_store_lost_is_stored_again(worker: Worker, tmp_path: Path) -> None:
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    with kvstore.Store(tmp_path / "store", capacity="128MiB", host="16MiB") as store:
        namespace = store.namespace(worker.side.identity)
        namespace.forget(kvstore.Prompt([]))
        # vLLM has the first two blocks in its own cache, so that only the third one is new.
        worker.step(
            updates=[update("b", range(48), [3, 7, 1])], saves=[Transfer("b", 2, 1)], finishing={"b"}
        )
        assert namespace.match(kvstore.Prompt(range(48))).blocks == 3


def test_updates_that_come_in_parts(worker: Worker, tmp_path: Path) -> None:
    worker.fill(1)
    worker.step(updates=[update("a", range(32), [3, 7])], saves=[Transfer("a", 0, 2)])
    worker.step(
        updates=[update("a", range(32, 64), [1, 4], first_token=32, first_block=2)],
        saves=[Transfer("a", 2, 2)],
        finishing={"a"},
    )
    with kvstore.Store(tmp_path / "store", capacity="128MiB", host="16MiB") as store:
        assert store.namespace(worker.side.identity).match(kvstore.Prompt(range(64))).blocks == 4


def test_blocks_are_overwritten_only_after_they_were_saved(worker: Worker) -> None:
    worker.fill(1)
    expected = worker.block(3)
    metadata = StepMetadata(updates=[update("a", range(16), [3])], saves=[Transfer("a", 0, 1)])
    worker.side.load(metadata)
    worker.side.save(metadata)
    worker.side.preempt(StepMetadata(preempted={"a"}))
    worker.fill(2)
    worker.step(layers=True, updates=[update("b", range(16), [5])], loads=[Transfer("b", 0, 1)])
    assert all(torch.equal(one, other) for one, other in zip(worker.block(5), expected, strict=True))


def end(worker: Worker, name: str) -> None:
    """Waits until the worker says, once, that the request's saves are done."""
    deadline = time.monotonic() + 60
    while not (saved := worker.side.finished()[0]) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert saved == {name}


def is_stored(worker: Worker, tokens: range, block_ids: list[int]) -> bool:
    """Whether these blocks' content comes back for the tokens."""
    blocks = len(tokens) // BLOCK
    contents = [worker.block(block) for block in block_ids]
    for tensor in worker.kv.values():
        tensor[block_ids] = 0
    _, _, failed = worker.step(
        layers=True, updates=[update("check", tokens, block_ids)], loads=[Transfer("check", 0, blocks)]
    )
    worker.step(forgotten={"check"})
    same = all(
        torch.equal(one, other)
        for block, content in zip(block_ids, contents, strict=True)
        for one, other in zip(worker.block(block), content, strict=True)
    )
    return not failed and same


def test_an_id_that_is_used_again_while_its_save_runs(worker: Worker) -> None:
    worker.fill(1)
    save_goes_on = threading.Event()
    worker.side._saves.submit(save_goes_on.wait)
    for work in (
        StepMetadata(updates=[update("a", range(32), [3, 7])], saves=[Transfer("a", 0, 2)], finishing={"a"}),
        StepMetadata(updates=[update("a", range(100, 132), [0, 1])], saves=[Transfer("a", 0, 2)]),
    ):
        worker.side.load(work)
        worker.side.save(work)
        assert worker.side.finished() == (set(), set())
    save_goes_on.set()
    end(worker, "a")
    saved, _, _ = worker.step(
        updates=[update("a", range(132, 196), [2, 4, 5, 6], first_token=32, first_block=2)],
        saves=[Transfer("a", 2, 4)],
        finishing={"a"},
    )
    assert saved == {"a"}
    assert is_stored(worker, range(32), [3, 7])
    assert is_stored(worker, range(100, 196), [0, 1, 2, 4, 5, 6])
    # Nor is anything stored under a part of what the new request has.
    assert worker.step(updates=[update("b", range(132, 148), [8])], loads=[Transfer("b", 0, 1)])[2] == {8}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ends", ["finishing", "forgotten"])
def test_an_id_that_is_used_again_in_the_step_in_which_it_ends(worker: Worker, ends: str, known: bool) -> None:
    worker.fill(1)
    save(worker, "other", range(100, 132), [8, 9])
    first, saves = [update("a", range(32), [3, 7])], [Transfer("a", 0, 2)]
    if known:
        worker.step(updates=first, saves=saves)
        first, saves = [update("a", range(32, 48), [4], first_token=32, first_block=2)], [Transfer("a", 2, 1)]
    saved, _, failed = worker.step(
        layers=True,
        updates=[*first, update("a", range(100, 132), [0, 1])],
        loads=[Transfer("a", 0, 2)],
        saves=saves,
        **{ends: {"a"}},
    )
    assert (saved, failed) == ({"a"} if ends == "finishing" else set(), set())
    worker.step(
        updates=[update("a", range(132, 164), [2, 5], first_token=32, first_block=2)],
        saves=[Transfer("a", 2, 2)],
        finishing={"a"},
    )
    assert is_stored(worker, range(48 if known else 32), [3, 7, 4] if known else [3, 7])
    assert is_stored(worker, range(100, 164), [0, 1, 2, 5])
    assert worker.step(updates=[update("b", range(132, 148), [6])], loads=[Transfer("b", 0, 1)])[2] == {6}


def test_reset_forgets(worker: Worker) -> None:
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    worker.step(reset=True)
    save(worker, "other", range(500, 516), [0])
    _, _, failed = worker.step(layers=True, updates=[update("b", range(32), [0, 5])], loads=[Transfer("b", 0, 2)])
    assert failed == {0, 5}


def test_after_an_unknown_call_nothing_is_loaded_or_saved(worker: Worker, tmp_path: Path) -> None:
    worker.fill(1)
    save(worker, "a", range(32), [3, 7])
    assert worker.side.news() is None
    worker.watch.unknown_calls.append("call_of_a_later_version")
    _, _, failed = worker.step(layers=True, updates=[update("b", range(32), [0, 5])], loads=[Transfer("b", 0, 2)])
    assert failed == {0, 5}
    news = worker.side.news()
    assert news is not None and news.changed == ["call_of_a_later_version"]
    worker.step(updates=[update("c", range(64), [0, 5, 1, 4])], saves=[Transfer("c", 0, 4)], finishing={"c"})
    with kvstore.Store(tmp_path / "store", capacity="128MiB", host="16MiB") as store:
        assert store.namespace(worker.side.identity).match(kvstore.Prompt(range(64))).blocks == 2


def test_a_replaced_adapter_is_noticed_before_the_scheduler_hears_of_it(worker: Worker) -> None:
    worker.fill(1)
    worker.watch.adapters[3] = b"one"
    with_one = {"adapter": 3, "adapter_digests": {RANK: b"one"}}
    blocks = update("a", range(32), [3, 7])
    worker.step(updates=[replace(blocks, **with_one)], saves=[Transfer("a", 0, 2)], finishing={"a"})
    again = replace(update("b", range(32), [0, 5]), **with_one)
    assert worker.step(layers=True, updates=[again], loads=[Transfer("b", 0, 2)])[2] == set()
    worker.watch.adapters[3] = b"two"
    late = replace(update("c", range(32), [0, 5]), **with_one)
    assert worker.step(layers=True, updates=[late], loads=[Transfer("c", 0, 2)])[2] == {0, 5}


def test_the_scheduler_hears_of_adapters_once(worker: Worker) -> None:
    worker.watch.adapters[3] = b"one"
    news = worker.side.news()
    assert news is not None and news.adapters == {RANK: {3: b"one"}}
    assert worker.side.news() is None


def test_a_full_disk_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "kvstore-test", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    try:
        worker = Worker(disk / "store")
        worker.fill(1)
        for turn in range(60):
            save(worker, f"request {turn}", range(1000 * turn, 1000 * turn + 48), [3, 7, 1])
            if "could not be written" in caplog.text:
                break
            time.sleep(0.05)
        assert "blocks were not kept, because they could not be written" in caplog.text
        worker.side.close()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_without_a_store_everything_goes_on(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    worker = Worker(tmp_path / "store")
    save(worker, "a", range(32), [3, 7])
    _, loaded, failed = worker.step(updates=[update("b", range(32), [0, 5])], loads=[Transfer("b", 0, 2)])
    assert (loaded, failed) == ({"b"}, {0, 5})
    worker.side.close()
