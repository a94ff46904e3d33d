"""Runs the server, the companion and the agents of Tests/lint/record."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "llama-server"))

from harness import WORK, Companion, Server  # noqa: E402

log, count = sys.argv[1:3]
processes = []
try:
    server = Server(WORK, os.environ["KVSTORE_LINT_MODEL"], "-np", "1", "--jinja", "-t", "2", "-n", "128", context=16384)
    processes.append(server)
    beside = Companion(WORK, server, "--record-text", log)
    processes.append(beside)
    agents = [os.environ["KVSTORE_LINT_AGENTS"], str(HERE / "agent_sessions.py"), f"http://127.0.0.1:{beside.port}", count]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_AGENTS_DISABLE_TRACING": "1", "NO_COLOR": "1"}
    status = subprocess.run(agents, env=environment).returncode
    beside.kill(signal.SIGTERM)
    sys.exit(status)
finally:
    for process in processes:
        process.kill()
    shutil.rmtree(os.path.realpath(WORK / "slots"), ignore_errors=True)
