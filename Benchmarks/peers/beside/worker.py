"""A process that has imported what stores of one environment need, and forks for each measure.

    python -m beside.worker          one request in JSON a line on stdin, one answer a line on stdout

Imports take seconds, and are paid once; what a measure allocates ends with its process.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import limits, machine, measures
from .peers import by_name

ACKNOWLEDGED = struct.Struct("=Q")


def _forked(work: Callable[[], dict[str, Any]], log: Path) -> tuple[int, int]:
    """A process of a session of its own, with the pipe on which its answer comes; its output goes to the log."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.setsid()
        machine.die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.close(reading)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        try:
            answer = work()
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        os.write(writing, json.dumps(answer).encode())
    finally:
        # What the parent's modules would do at its end is not for its children.
        os._exit(0)


def _end(child: int) -> None:
    """With the servers that it started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _answer(child: int, reading: int, timeout: float) -> dict[str, Any]:
    signal.signal(signal.SIGALRM, lambda *_: _end(child))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    parts = []
    while part := os.read(reading, 1 << 16):
        parts.append(part)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _end(child)
    if parts:
        return dict(json.loads(b"".join(parts)))
    code = os.waitstatus_to_exitcode(status)
    return {"error": f"took longer than {timeout:.0f} s" if code == -signal.SIGKILL else f"ended with status {code}"}


def _killed(request: dict[str, Any], work: Callable[[], dict[str, Any]], log: Path) -> dict[str, Any]:
    """Kills it, servers included, once so many blocks were said to be safe, wherever it is by then."""
    counter = mmap.mmap(-1, mmap.PAGESIZE)
    request["counter"] = counter
    child, reading = _forked(work, log)
    end = time.monotonic() + request["timeout"]
    count, ended = 0, False
    while count < request["kill_after"] and time.monotonic() < end and not ended:
        time.sleep(0.0005)
        (count,) = ACKNOWLEDGED.unpack_from(counter)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    time.sleep(request["kill_delay"])
    _end(child)
    answer = _answer(child, reading, 10)
    (count,) = ACKNOWLEDGED.unpack_from(counter)
    if count < request["kill_after"]:
        return {"error": answer.get("error", "not one put was done in time"), "acknowledged": count}
    return {"acknowledged": count}


def perform(request: dict[str, Any]) -> dict[str, Any]:
    log = Path(request["log"])
    if request["measure"] == "limits":
        return _answer(*_forked(lambda: limits.measure(request), log), request["timeout"])
    if request["measure"] == "flip":
        return _answer(*_forked(lambda: measures.flip(request), log), request["timeout"])
    kind = by_name(request["peer"])
    if reason := kind.missing():
        return {"missing": reason}
    try:
        kind.prepare()
    except Exception as error:
        traceback.print_exc()
        return {"missing": f"{type(error).__name__}: {error}"[:300]}
    if request["measure"] == "prepare":
        return {}
    work = measures.MEASURES[request["measure"]]
    if request["measure"] == "write_until_killed":
        return _killed(request, lambda: work(kind, request), log)
    return _answer(*_forked(lambda: work(kind, request), log), request["timeout"])


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        # What it started ends with it.
        signal.signal(number, lambda *_: os._exit(143))
    answers = os.fdopen(os.dup(1), "w")
    # Imports talk on stdout.
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(perform(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
