"""What another machine's objects cost to have, by kvstore's remote tier and by LMCache's own backend on the same Redis, in turns.

    PYTHONPATH=INSTALLED:LMCACHE python remote_compare.py [--rounds 7] [--objects 32] [--mib 4]

Both are second levels of LMCache's MP server, called as it calls them: one adapter stores the objects, another one (of another
machine, whose store is empty) looks them up and loads them. Ours are this package's adapter with `remote`; theirs is LMCache's
RESP connector ("resp"), with as many connections as ours (4) and with its default (8). Looking up and loading is one figure, for
ours fetches while it looks up. Every round is checked byte by byte, and starts with an empty server. One server, on loopback.
Prints medians with the least and the most, and ours as a ratio of theirs of the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lmcache.cli.commands.bench.l2_adapter_bench.data import make_memory_objects, wait_eventfd
from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.plugin_l2_adapter import PluginL2AdapterConfig
from lmcache.v1.distributed.l2_adapters.resp_l2_adapter import RESPL2AdapterConfig

sys.path.append(str(Path(__file__).resolve().parents[3] / "Tests/remote"))

import servers  # noqa: E402

Measure = dict[str, float]


class Objects:
    """What is stored, and what is to come back."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.keys = [ObjectKey(chunk_hash=index.to_bytes(32, "big"), model_name="m", kv_rank=0) for index in range(count)]
        self.layout = {0: MemoryLayoutDesc(shapes=[torch.Size([size])], dtypes=[torch.uint8])}
        self.right = torch.randint(0, 256, (count * size,), dtype=torch.uint8)
        self.found = torch.empty_like(self.right)

    def memory(self, buffer: torch.Tensor) -> list[Any]:
        kept = buffer.clone()
        made = make_memory_objects(buffer, self.count, self.size, 0, fill_offset=0)
        # It fills what it makes.
        buffer.copy_(kept)
        return list(made)


def store(adapter: Any, objects: Objects) -> float:
    memory = objects.memory(objects.right)
    started = time.perf_counter()
    task = adapter.submit_store_task(objects.keys, memory)
    assert wait_eventfd(adapter.get_store_event_fd())
    assert adapter.pop_completed_store_tasks()[task].is_successful()
    return time.perf_counter() - started


def load(adapter: Any, objects: Objects) -> Measure:
    objects.found.zero_()
    memory = objects.memory(objects.found)
    objects.found.zero_()
    started = time.perf_counter()
    task = adapter.submit_lookup_and_lock_task(objects.keys, objects.layout)
    assert wait_eventfd(adapter.get_lookup_and_lock_event_fd())
    found = list(adapter.query_lookup_and_lock_result(task).get_indices_list())
    looked = time.perf_counter()
    assert found == list(range(objects.count)), f"found {len(found)} of {objects.count}"
    task = adapter.submit_load_task(objects.keys, memory)
    assert wait_eventfd(adapter.get_load_event_fd())
    loaded = list(adapter.query_load_result(task).get_indices_list())
    ended = time.perf_counter()
    adapter.submit_unlock(objects.keys)
    assert loaded == found and torch.equal(objects.found, objects.right), "what came is not what was stored"
    return {"look up": looked - started, "load": ended - looked, "both": ended - started}


def ours(folder: Path, url: str) -> Any:
    settings = {
        "path": str(folder), "disk_bytes": "2GiB", "host_bytes": "512MiB", "weights_digest": "11" * 32,
        "remote": url, "remote_writes": "all", "remote_wait_seconds": 60,
        "remote_look_up_timeout_seconds": 30, "remote_transfer_timeout_seconds": 60,
    }  # fmt: skip
    plugin = {"type": "plugin", "module_path": "kvstore.lmcache", "class_name": "KVStoreL2Adapter", "adapter_params": settings}
    return create_l2_adapter(PluginL2AdapterConfig.from_dict(plugin))


def theirs(port: int, workers: int) -> Any:
    config = RESPL2AdapterConfig.from_dict({"type": "resp", "host": "127.0.0.1", "port": port, "num_workers": workers})
    return create_l2_adapter(config)


def round_of_ours(server: Any, objects: Objects, folder: Path) -> Measure:
    with tempfile.TemporaryDirectory(dir=folder) as root:
        a, b = ours(Path(root) / "a", server.url()), ours(Path(root) / "b", server.url())
        try:
            started = time.perf_counter()
            stored = store(a, objects)
            # Until the last of them is there, the record of the namespace with them.
            servers.wait_for(lambda: server.do("DBSIZE") >= objects.count + 1, "all objects", 120)
            return {"store": stored, "until it is there": time.perf_counter() - started, **load(b, objects)}
        finally:
            a.close()
            b.close()


def round_of_theirs(server: Any, objects: Objects, workers: int) -> Measure:
    a, b = theirs(server.port, workers), theirs(server.port, workers)
    try:
        stored = store(a, objects)
        return {"store": stored, "until it is there": stored, **load(b, objects)}
    finally:
        a.close()
        b.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--mib", type=int, default=4, help="of an object; from 3 on each is a chunk")
    parser.add_argument("--folder", type=Path, help="where the stores are (default: the system's temporary folder)")
    options = parser.parse_args()
    program = next(iter(servers.programs().items()), None)
    if program is None:
        sys.exit("neither redis-server nor valkey-server can be had")
    objects = Objects(options.objects, options.mib << 20)
    with servers.Servers() as started:
        server = started.server(program[1], "--save", "", "--appendonly", "no")
        arms: dict[str, Callable[[], Measure]] = {
            "kvstore": lambda: round_of_ours(server, objects, options.folder or Path(tempfile.gettempdir())),
            "LMCache, 4 connections": lambda: round_of_theirs(server, objects, 4),
            "LMCache, 8 connections": lambda: round_of_theirs(server, objects, 8),
        }
        rows: dict[str, list[Measure]] = {name: [] for name in arms}
        for number in range(options.rounds):
            names = list(arms) if number % 2 == 0 else list(reversed(arms))
            for name in names:
                server.do("FLUSHALL", "SYNC")
                rows[name].append(arms[name]())
        size = options.objects * options.mib
        print(f"{program[0]}, {options.objects} objects of {options.mib} MiB, {options.rounds} rounds; load {os.getloadavg()[0]:.1f}")
        for what in rows["kvstore"][0]:
            for name in arms:
                times = [row[what] for row in rows[name]]
                ratios = [ours[what] / row[what] for ours, row in zip(rows["kvstore"], rows[name], strict=True)]
                beside = "" if name == "kvstore" else f"; kvstore ÷ this {spread(ratios, '.2f')}"
                speed = size / 1024 / statistics.median(times)
                print(f"{what:>18}  {name:<24} {spread([1000 * t for t in times], '.0f')} ms, {speed:.2f} GiB/s{beside}")


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
