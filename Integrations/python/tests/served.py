"""A server that a page of docs/engines tells people to run, in a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Served:
    """It answers at `up` once this is made; what it says is in `log`."""

    def __init__(
        self,
        words: list[str],
        port: int,
        log: Path,
        *,
        up: str = "/health",
        seconds: float = 600,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port, self.log = port, log
        with log.open("ab") as out:
            self._process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, env=environment)
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.ask(up)
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-4000:]
                time.sleep(0.2)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            text: str = response.read().decode()
        return text

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)
