"""A small agent that is killed and goes on: it reads notes, asks a model about each, and writes a report.

    llama-server -m model.gguf -c 4096 -np 1 --jinja --port 8080 &
    python agent.py run STORE http://127.0.0.1:8080 --die 3     # is killed before its third note
    python agent.py run STORE http://127.0.0.1:8080             # goes on behind the second
    python agent.py fork STORE http://127.0.0.1:8080            # another report, from the same notes
    python agent.py replay STORE                                # needs no server
    python agent.py bill STORE                                  # what the runs asked of the server

Any server with OpenAI's chat completions will do. `python -m kvstore.agent run STORE report --user ann --log` shows the run.
"""

import argparse
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

from kvstore import Store
from kvstore.agent import AgentStore, DivergenceError, Run, Runtime, tool_cache

NOTES = {
    "pump": "The pump in hall 2 ran 410 hours. Its seal leaks a little. Replace it before May.",
    "roof": "The roof over hall 1 was repaired on 3 March. No water came in since.",
    "lift": "The goods lift was out of order for 2 days. The motor is from 1998.",
    "gate": "The east gate closes slowly. A new spring costs 85 euros.",
    "fire": "All 14 fire extinguishers were tested. Two of them were replaced.",
}
SYSTEM = "You read notes of a caretaker. Answer in one short sentence, and only from the note that you are given. " * 4


@tool_cache(scope="user", version="1", reads=["notes"], ttl="1d")
def read_note(name: str) -> dict[str, Any]:
    """A tool: here a dictionary, elsewhere a slow service."""
    print(f"  reading the note about the {name}")
    return {"text": NOTES[name], "numbers": [int(number) for number in re.findall(r"\d+", NOTES[name])]}


def server(url: str) -> Any:
    """Posts a chat completion."""

    def send(body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answer: dict[str, Any] = json.load(response)
        print(f"  the model was asked ({answer['usage']['prompt_tokens']} tokens)")
        return answer

    return send


def nobody(body: Mapping[str, Any]) -> dict[str, Any]:
    """Where no model is to be asked."""
    raise RuntimeError("a replay asks no model")


def work(run: Run, send: Any, title: str, die: int = 0) -> str:
    """The agent. Each call in it is answered from the run if it was answered before."""
    runtime = Runtime(run, send, model="local", system=SYSTEM, settings={"temperature": 0, "max_tokens": 48})
    findings = {}
    for number, name in enumerate(NOTES, 1):
        if number == die:
            print("  killed")
            os.kill(os.getpid(), signal.SIGKILL)
        note = read_note(name)
        runtime.say(f"Note: {note['text']}\nWhat is to be done?", volatile={"now": time.strftime("%F %T")})
        findings[name] = runtime.step()["content"]
        run.save({"findings": findings})
    run.checkpoint("read", keep="7d")
    report = [f"# {title}", *(f"* {name}: {text}" for name, text in findings.items())]
    return str(run.step("report", "\n".join, report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "fork", "replay", "bill"))
    parser.add_argument("store")
    parser.add_argument("server", nargs="?")
    parser.add_argument("--die", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    if arguments.what in ("run", "fork") and not arguments.server:
        parser.error("a run needs the server's address")
    with Store(arguments.store, capacity="1GiB") as store, AgentStore(store) as agents:
        if arguments.what == "run":
            with agents.run("report", user="ann") as run:
                print(f"{run.confirmed} steps are confirmed")
                print(work(run, server(arguments.server), "Report", arguments.die))
        elif arguments.what == "fork":
            fork = agents.existing_run("report", user="ann").fork(f"report {time.time_ns()}", at="read")
            with fork:
                fork.skip()
                lines = [f"* {name}" for name in fork.state["findings"]]
                print(fork.step("report", "\n".join, ["# Another report", *lines]))
        elif arguments.what == "replay":
            try:
                with agents.replay("report", user="ann") as run:
                    print(work(run, nobody, "Report"))
            except DivergenceError as error:
                print(error)
        else:
            bill(agents)


def bill(agents: AgentStore) -> None:
    """Tokens that were asked of the server, and those that would have been without the store."""
    run = agents.existing_run("report", user="ann")
    openings = run.openings()
    events = [event for opening in openings for event in run.events(opening.index, values=True) if event.layer == "answer"]
    sizes = {event.key: event.value["usage"]["total_tokens"] for event in events if event.has_value}
    asked = sum(sizes[event.key] for event in events if event.outcome != "recorded")
    without = sum(sizes[event.key] for event in events)
    print(f"{len(openings)} starts, {len(events)} questions: {asked} tokens were asked of the server, without the store {without}")


if __name__ == "__main__":
    main()
