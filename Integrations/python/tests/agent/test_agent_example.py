"""docs/examples/agent: killed, resumed, forked, replayed, as its page says."""

from __future__ import annotations

import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from conftest import ROOT, environment
from test_agent_runtime import Prefixes

EXAMPLE = ROOT / "docs/examples/agent/agent.py"


def run(*words: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-u", EXAMPLE, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_the_example_is_killed_and_goes_on(tmp_path: Path) -> None:
    model = Prefixes()
    model.calls_left = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            answer = model(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            answer["usage"]["total_tokens"] = answer["usage"]["prompt_tokens"] + 3
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address, store = f"http://127.0.0.1:{server.server_port}", tmp_path / "store"
    try:
        first = run("run", store, address, "--die", 3, status=-signal.SIGKILL)
        assert first.count("the model was asked") == 2 and first.splitlines()[-1].strip() == "killed"
        second = run("run", store, address)
        assert second.count("the model was asked") == 3 and second.count("reading the note") == 3
        report = second[second.index("# Report") :]
        assert report.count("reply") == 5
        assert "# Another report" in run("fork", store, address)
    finally:
        server.shutdown()
        server.server_close()
    assert run("replay", store) == report
    assert run("run", store, address).count("asked") == 0
    found = re.fullmatch(r"4 starts, 12 questions: (\d+) tokens were asked of the server, without the store (\d+)\n", run("bill", store))
    assert found is not None and 0 < int(found[1]) < int(found[2])
    assert len(model.bodies) == 5
