"""A process that is told by lines of JSON what to do, and may do it in forks of itself.

An engine takes many seconds to be imported, and leaves things behind where it was started: in a fork it is imported
already, and what it leaves behind goes with it. What the first call imports beside that is imported for the next ones.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import Any

ANSWER = "@answer "
SECONDS = 60


def serve(calls: Any, imports: list[str] | None = None) -> None:
    """Answers calls of the methods of `calls` until stdin ends; in forks, if there are modules to be imported before."""
    # Engines write to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in imports or []:
        importlib.import_module(module)
    known = imports is None
    for line in sys.stdin:
        call = json.loads(line)
        answer = _in_a_fork(calls, call) if imports else _answer(calls, call)
        if not known and "done" in answer:
            known = True
            for module in answer.pop("imported"):
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
        answers.write("\n" + ANSWER + json.dumps(answer) + "\n")
        answers.flush()


def _answer(calls: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"done": getattr(calls, call.pop("what"))(**call)}
    except BaseException as reason:
        traceback.print_exc()
        return {"refused": f"{type(reason).__name__}: {reason}"}


def _in_a_fork(calls: Any, call: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reading)
        before = set(sys.modules)
        answer = _answer(calls, call)
        answer["imported"] = [name for name in sys.modules if name not in before]
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(answer).encode() + b"\n")
        os._exit(0)
    os.close(writing)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    said = b""
    end = time.monotonic() + SECONDS
    while not said.endswith(b"\n") and select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            break
        said += part
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        # Whatever the engine has started goes with it.
        os.killpg(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if said.endswith(b"\n"):
        return json.loads(said)
    late = time.monotonic() >= end
    return {"refused": f"no answer within {SECONDS} s" if late else f"the process ended with status {status}"}
