"""Runs of agents (kvstore.agent) that are killed, alone or with server and companion: what is computed again, by the server's count."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys

from harness import HERE, Skipped, check, equal
from support import BLOCK, pair
from surface import LONG

ROOT = HERE.parent.parent

AGENT = '''
import json, os, signal, sys, urllib.request
from kvstore import Store
from kvstore.agent import AgentStore, Runtime, tool_cache

folder, port, steps, die, where = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
number = 0

def here(name):
    if number == die and name == where:
        os.kill(os.getpid(), signal.SIGKILL)

def note(name, line):
    with open(f"{folder}/{name}", "a") as file:
        file.write(json.dumps(line) + "\\n")

@tool_cache(scope="run", writes=["world"])
def tool(step):
    note("calls", step)
    return f"Result {step}: " + " ".join(str(step * prime % 97) for prime in (3, 5, 7))

def send(body):
    here("before the request")
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        answer = json.load(response)
    usage = answer["usage"]
    note("requests", [number, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]])
    here("behind the answer")
    return answer

with Store(f"{folder}/agent", capacity="64MiB", host="16MiB") as store, AgentStore(store) as agents, agents.run("r", user="ann") as run:
    runtime = Runtime(run, send, model="m", system="You keep the books of a house. " * 20, settings={"temperature": 0, "max_tokens": 4})
    for number in range(1, steps + 1):
        here("before the tool")
        runtime.say(tool(number))
        runtime.step()
        run.save({"step": number})
    print(json.dumps([step.key for step in run.steps()]))
'''
WHERE = ("before the tool", "before the request", "behind the answer")


def agent(place, port, steps, die=0, where=WHERE[0]):
    library = pathlib.Path(os.environ["KVSTORE_PREFIX"]) / "lib/libkvstore.so.0"
    if not library.exists():
        raise Skipped("there is no kvstore library")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "Integrations/python/src"), "PYTHONDONTWRITEBYTECODE": "1", "KVSTORE_LIBRARY": str(library),
    }
    words = [sys.executable, "-c", AGENT, place, port, steps, die, where]
    return subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, timeout=600)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def killed(place, processes, kind, steps, deaths):
    """An agent that dies at some steps, at one place in each, every third time with server and companion; then goes on to its end."""
    place.mkdir()
    server, beside = pair(place, processes, kind, "-np", "1", "--cache-ram", "0")
    for index, (step, where) in enumerate(deaths):
        done = agent(place, beside.port, steps, step, where)
        equal(done.returncode, -signal.SIGKILL, done.stderr[-500:])
        if index % 3 == 2:
            # What is not in the store yet is not durable.
            beside.quiet()
            beside.kill()
            server.kill()
            server.start()
            beside.start()
    done = agent(place, beside.port, steps)
    equal(done.returncode, 0, done.stderr[-500:])
    equal(lines(place / "calls"), list(range(1, steps + 1)), "a tool was executed again, or not at all")
    asked = lines(place / "requests")
    worst, again = 0, 0
    for (_, before, _), (number, tokens, cached) in zip(asked, asked[1:]):
        # What the last prompt had is not new in this one.
        lost = min(before, tokens) - cached
        worst = max(worst, lost)
        again += tokens == before
        check(lost <= BLOCK, "step", number, "computed", lost, "tokens again, of", tokens, asked)
    equal(len(agent(place, beside.port, steps).stderr), 0)
    equal(len(lines(place / "requests")), len(asked), "a run that was at its end asked again")
    print(
        f"      {kind}: {steps} steps, {len(deaths)} deaths, {len(asked)} requests ({again} asked twice), "
        f"at most {worst} of up to {asked[-1][1]} tokens computed again", flush=True
    )  # fmt: skip
    beside.kill(signal.SIGTERM)
    server.kill()


def test_agents_runs_are_killed(place, processes):
    """kill -9 of an agent at step 7 of 10, and at every step of a run (50 steps × 20 in the long form), alone or with server and
    companion: no tool is executed twice, and the server computes at most one block again. With plain attention: where only ends can be
    restored, a prompt that is asked twice is computed from an end before it, which may be two short turns away."""
    for where in WHERE:
        killed(place / where.replace(" ", "-"), processes, "attention", 10, [(7, where)] * 3)
    for repeat in range(20 if LONG else 1):
        source = random.Random(repeat)
        steps = 50 if LONG else 8
        deaths = [(step, source.choice(WHERE)) for step in range(1, steps + 1)]
        killed(place / f"every-{repeat}", processes, "attention", steps, deaths)
