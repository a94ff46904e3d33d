"""The adapter with a remote tier: what one machine's LMCache has stored, another's finds and loads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_adapter
import torch
from lmcache.v1.distributed.api import MemoryLayoutDesc
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.plugin_l2_adapter import PluginL2AdapterConfig

sys.path.append(str(Path(__file__).parents[1]))

from remote_server import server, wait_for_objects  # noqa: E402, F401
from test_adapter import COUNT, found, keys, load, specification, store  # noqa: E402

# Each of them is a chunk.
SIZE = 4 << 20
Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any) -> Iterator[Make]:  # noqa: F811
    monkeypatch.setattr(test_adapter, "SIZE", SIZE)
    monkeypatch.setattr(
        test_adapter, "LAYOUT", {0: MemoryLayoutDesc(shapes=[torch.Size([SIZE])], dtypes=[torch.uint8])}
    )
    made: list[Any] = []

    def adapter(name: str, wait: float = 60, **more: Any) -> Any:
        remote = {"remote": server.url(), "remote_writes": "all", "remote_wait_seconds": wait}
        remote |= {"remote_look_up_timeout_seconds": min(wait, 30), "remote_transfer_timeout_seconds": 60}
        settings = specification(tmp_path / name, host_bytes="128MiB", **remote, **more)
        made.append(create_l2_adapter(PluginL2AdapterConfig.from_dict(settings)))
        return made[-1]

    yield adapter
    for one in made:
        one.close()


def test_objects_cross(make: Make, server: Any) -> None:  # noqa: F811
    first = make("a")
    expected = store(first, keys())
    wait_for_objects(server, 1 + COUNT)
    second = make("b")
    assert found(second, keys(2, COUNT)) == [0, 1, 2, 3]
    second.submit_unlock(keys(2, COUNT))
    assert found(second, keys()) == list(range(COUNT))
    loaded, which = load(second, keys())
    assert which == list(range(COUNT)) and torch.equal(loaded, expected)
    # Other weights find nothing there.
    assert found(make("c", weights_digest="22" * 32), keys()) == []
    # It is here now.
    server.kill()
    assert found(second, keys()) == list(range(COUNT))


def test_a_server_that_is_stopped_or_dead(make: Make, server: Any) -> None:  # noqa: F811
    adapter = make("b", wait=0.5)
    server.stop()
    assert found(adapter, keys()) == []
    server.go_on()
    server.kill()
    assert found(adapter, keys(10)) == []
    # And it goes on storing what it has.
    store(adapter, keys())
    assert found(adapter, keys()) == list(range(COUNT))


def test_a_bad_setting_ends_the_start(tmp_path: Path) -> None:
    for more, said in (
        ({"remote_writes": "some"}, "remote_writes"),
        ({"remote": "cache"}, "redis://HOST:PORT"),
        ({"read_only": True}, "read_only"),
        ({"remote_key_file": str(tmp_path / "none")}, "remote_key_file"),
        ({"remote_keyfile": "key"}, "unknown setting"),
    ):
        settings = specification(tmp_path, **{"remote": "redis://127.0.0.1:1", **more})
        with pytest.raises(Exception, match=said):
            create_l2_adapter(PluginL2AdapterConfig.from_dict(settings))
