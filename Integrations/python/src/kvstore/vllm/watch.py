"""Notices, in a worker, what changes after the start: calls that may touch the weights, and adapters as they are loaded."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from .. import loaded
from ..effective import Effective
from .left_out import HARMLESS_CALLS

logger = logging.getLogger("vllm.kvstore")

# The number that an adapter has in this process; what else there is of it is its content.
_ADAPTER_LEFT_OUT = {"LoRAModel.id": "names the adapter within one process"}
# What vLLM's own code reads of a worker beside calling it.
_FIELDS = frozenset("device global_rank local_rank mm_receiver_cache model_runner rank rpc_rank vllm_config worker".split())
_watches: list[Watch] = []
_watched: set[type] = set()


class Watch:
    """What this worker was told since the connector was made."""

    def __init__(self) -> None:
        self.unknown_calls: list[str] = []
        """Calls that may have changed the weights."""
        self.adapters: dict[int, bytes] = {}
        """Digest of each adapter that was loaded, by its number, of what was loaded."""
        self.before_sleep: Callable[[], None] = lambda: None
        """Called before vLLM gives the memory of its KV cache away for a while."""
        self._managers: list[Any] = []

    @classmethod
    def install(cls) -> Watch:
        """Watches this process's worker from now on."""
        # Where one of these is gone, vLLM does not start: better than hits of other weights.
        from vllm.lora.worker_manager import WorkerLoRAManager
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        for kind, change in ((WorkerWrapperBase, _watch_calls), (WorkerLoRAManager, _watch_adapters)):
            # Of this class itself: one that inherits from it is changed along with it.
            if kind not in _watched:
                _watched.add(kind)
                change(kind)
        watch = cls()
        watch._managers = loaded.instances_of(WorkerLoRAManager)
        _watches.append(watch)
        return watch

    def close(self) -> None:
        """Watches no more."""
        if self in _watches:
            _watches.remove(self)

    def current(self) -> dict[int, bytes]:
        """Digest of each adapter that is in memory now, by its number: one that comes back may hold something else."""
        if not self.adapters or not self._managers:
            return dict(self.adapters)
        here = {number for manager in self._managers for number in manager.list_adapters()}
        # One that could not be loaded stays known as such.
        return {number: digest for number, digest in self.adapters.items() if number in here or not digest}

    def load_adapter(self, request: Any, *, idle: bool) -> bool:
        """Has vLLM load an adapter before a request runs with it; False if it is to be asked again.

        Only where no other adapter is pushed out, which the step under way may need.
        """
        if request.lora_int_id in self.current() or not self._managers:
            return True
        manager = self._managers[0]
        slots = manager.lora_config.max_loras
        if not idle and len(manager.list_adapters()) >= slots:
            return False
        try:
            manager.add_adapter(request)
        except Exception as reason:
            logger.warning("kvstore: adapter %s cannot be loaded, its requests are not cached: %s", request.lora_name, reason)
            self.adapters[request.lora_int_id] = b""
        return True


def _watch_calls(wrapper: type) -> None:
    """Every call of an executor fetches a method of its worker by name, or hands a function the worker to do so."""
    original = wrapper.__getattribute__

    def fetch(self: Any, name: str, /) -> Any:
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        own = caller == wrapper.__module__ and name.startswith("_")
        if not (name in HARMLESS_CALLS or own or name.startswith("__") or (name in _FIELDS and caller.startswith("vllm."))):
            for watch in _watches:
                watch.unknown_calls.append(name)
        if name == "sleep":
            return _watched_sleep(original(self, "worker").sleep)  # type: ignore[call-arg]
        return original(self, name)  # type: ignore[call-arg]

    wrapper.__getattribute__ = fetch  # type: ignore[method-assign,assignment]


def _watched_sleep(sleep: Callable[..., Any]) -> Callable[..., Any]:
    """From the second level on a worker wakes up without its weights, until somebody loads some."""

    def watched(level: int = 1, *arguments: Any, **named: Any) -> Any:
        for watch in _watches:
            watch.before_sleep()
            if level > 1:
                watch.unknown_calls.append(f"sleep at level {level}")
        return sleep(level, *arguments, **named)

    return watched


def _watch_adapters(manager: type) -> None:
    original = manager._load_adapter  # type: ignore[attr-defined]

    def load(self: Any, request: Any) -> Any:
        model = original(self, request)
        effective = Effective(_ADAPTER_LEFT_OUT)
        digest = effective.digest(model)
        for watch in _watches:
            watch.adapters[request.lora_int_id] = b"" if effective.unnameable else digest
        return model

    manager._load_adapter = load  # type: ignore[attr-defined]
