"""The command of docs/engines/vllm.md, as it stands there."""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path

import pytest
from tiny_model import write_model, write_tokenizer

sys.path.append(str(Path(__file__).parents[1]))

from documented import command, others  # noqa: E402
from served import Served, free_port  # noqa: E402

pytestmark = pytest.mark.slow


def named(folder: Path) -> str:
    """A folder that has the package by the name that its command asks for: the build for CPU goes by another one."""
    import vllm

    about = folder / "named/vllm-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    version = vllm.__version__.split("+")[0]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return str(about.parent)


class Server(Served):
    """`vllm serve`."""

    def __init__(self, words: list[str], log: Path) -> None:
        port = free_port()
        # What runs it is this environment's, and what a test must choose comes last.
        words = [str(Path(sys.executable).with_name(words[0])), *words[1:], "--port", str(port)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (named(log.parent), os.environ.get("PYTHONPATH")))),
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        super().__init__(words, port, log, environment=environment)

    def found(self) -> int:
        """Tokens that came from the store."""
        counts = re.findall(r"^vllm:external_prefix_cache_hits_total\{.*\} ([\d.e+]+)$", self.ask("/metrics"), re.MULTILINE)
        return int(sum(float(count) for count in counts))


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
        texts.append(json.loads(server.ask("/v1/completions", body))["choices"][0]["text"])
        assert server.found() == found
        # What is being saved ends with a step.
        server.ask("/v1/completions", {**body, "prompt": [5, 6, 7]})
        server.stop()
    assert texts[0] == texts[1]
