"""The command of docs/engines/vllm.md, as it stands there."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_model, write_tokenizer

sys.path.append(str(Path(__file__).parents[1]))

from documented import command, others  # noqa: E402

pytestmark = pytest.mark.slow


def named(folder: Path) -> str:
    """A folder that has the package by the name that its command asks for: the build for CPU goes by another one."""
    import vllm

    about = folder / "named/vllm-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    version = vllm.__version__.split("+")[0]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return str(about.parent)


class Server:
    """`vllm serve` in a process of its own."""

    def __init__(self, words: list[str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.log = log
        # What runs it is this environment's, and what a test must choose comes last.
        words = [str(Path(sys.executable).with_name(words[0])), *words[1:], "--port", str(self._port)]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                words,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, (named(log.parent), os.environ.get("PYTHONPATH")))),
                    "HF_HUB_OFFLINE": "1",
                    "VLLM_CPU_KVCACHE_SPACE": "1",
                    "VLLM_NO_USAGE_STATS": "1",
                },
            )
        deadline = time.monotonic() + 600
        while True:
            try:
                self.get("/health")
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-4000:]
                time.sleep(0.5)

    def get(self, path: str, body: dict[str, Any] | None = None) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.read().decode()

    def found(self) -> int:
        """Tokens that came from the store."""
        counts = re.findall(r"^vllm:external_prefix_cache_hits_total\{.*\} ([\d.e+]+)$", self.get("/metrics"), re.MULTILINE)
        return int(sum(float(count) for count in counts))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)


def test_the_command_as_it_stands(tmp_path: Path) -> None:
    """A server that is stopped and started again finds what the first one stored."""
    assert others("vllm.md", "vllm serve", "pip install") == []
    model = tmp_path / "model"
    write_model(model, seed=1)
    write_tokenizer(model)
    words = command("vllm.md", "vllm serve", {"MODEL": str(model), "/var/cache/kv": str(tmp_path / "store")})
    generator = random.Random(1)
    body = {
        "model": str(model),
        "prompt": [generator.randrange(3, 4096) for _ in range(1000)],
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
    }
    texts = []
    for found in (0, 896):
        server = Server(words, tmp_path / f"log{found}")
        texts.append(json.loads(server.get("/v1/completions", body))["choices"][0]["text"])
        assert server.found() == found
        # What is being saved ends with a step.
        server.get("/v1/completions", {**body, "prompt": [5, 6, 7]})
        server.stop()
    assert texts[0] == texts[1]
