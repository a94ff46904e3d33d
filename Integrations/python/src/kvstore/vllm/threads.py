"""Where the connector's threads run: beside the ones that compute."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

from vllm.platforms import current_platform


def cores_allowed() -> set[int]:
    """The cores that vLLM has; on a CPU the ones of the process that started this worker.

    There vLLM binds each thread that computes to a core of its own, the worker's first thread among them. Whatever that
    thread starts would stay on its core, and make all the others wait for it at the end of each layer.
    """
    own = os.sched_getaffinity(0)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or not current_platform.is_cpu():
        return own
    try:
        return own | os.sched_getaffinity(parent.pid)
    except OSError:
        return own


def thread_pool(count: int, name: str, cores: set[int]) -> ThreadPoolExecutor:
    """Threads on these cores; what they start, a library's threads included, is there too."""
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_run_on, initargs=(cores,))


def _run_on(cores: set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        # They have been taken away since.
        pass
