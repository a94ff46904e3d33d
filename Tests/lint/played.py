"""The ten everyday actions, played on a real llama-server: what each is called, and what it costs.

    played.py COMMAND     with LLAMA_SERVER, KVSTORE_LLAMA, KVSTORE_LLAMA_WORK, as Tests/lint/played sets them

Names: `kvstore lint`, `kvstore inspect why-miss`, the companion's account of the request and the store's session say the same cause.
Cost: what `kvstore lint --server` predicts is what the server computes beyond the request as it should have been, to a block.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "llama-server"))

import actions  # noqa: E402
from harness import Companion, Server, check, equal, run_all  # noqa: E402
from support import BLOCK  # noqa: E402

COMMAND = sys.argv[1]
CONTEXT = 49152


def kvstore(*arguments, input=None):
    done = subprocess.run([COMMAND, *map(str, arguments)], input=input, capture_output=True, text=True)
    check(done.returncode == 0, arguments, done.stderr[-600:])
    return json.loads(done.stdout)


def ask(client, request):
    answer = client.post("/v1/chat/completions", {**request, "max_tokens": 1, "temperature": 0}, timeout=300)
    equal(answer.status, 200, answer.body[:300])
    return answer.json


def computed(client, request):
    return ask(client, request)["timings"]["prompt_n"]


def tokens(client, request):
    prompt = client.post("/apply-template", request).json["prompt"]
    return client.post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True}).json["tokens"]


def erase(server):
    equal(server.client.post("/slots/0?action=erase", {}).status, 200)


def serve(place, processes, kind="attention"):
    server = Server(place, kind, "-np", "1", "--cache-ram", "0", "--jinja", context=CONTEXT)
    processes.append(server)
    return server


def predicted(server, log):
    document = kvstore("lint", "-", "--json", "--server", f"http://127.0.0.1:{server.port}", input="\n".join(log) + "\n")
    return [f for f in document["findings"] if f["kind"] != "lowHitRate"]


def mended(log, request):
    """The last request as it should have been; as it is where nothing in it is to be mended."""
    done = subprocess.run([COMMAND, "lint", "-", "--show-fixed", str(len(log))], input="\n".join(log) + "\n", capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else request


def cost(place, processes):
    """Lost tokens: predicted, and counted by the server."""
    server = serve(place, processes)
    sub = place / "second"
    sub.mkdir()
    other = serve(sub, processes, "other")
    wrong = []
    print(f"{'action':40} {'predicted':>9} {'server':>7} {'between':>8}")
    for name, (make, kind, _, _, _) in actions.ACTIONS.items():
        log = actions.log(name)
        requests = [json.loads(line)["request"] for line in log]
        first, last = requests[-2], requests[-1]
        found = predicted(server, log)
        equal([f["kind"] for f in found if f["line"] == len(log)], [kind] if kind else [], name)
        check(all(not f["tokens_estimated"] for f in found), name, "is estimated", found)
        lost = sum(f["tokens_lost"] for f in found if f["line"] == len(log))
        erase(server)
        computed(server.client, first)
        if kind == "modelSwitched":
            # The other model's server has nothing of it.
            erase(other)
            broken = computed(other.client, last)
            fixed = computed(server.client, {**last, "model": first["model"]})
        elif kind == "resumedAfterPause":
            # The cache has forgotten it.
            fixed = computed(server.client, last)
            erase(server)
            broken = computed(server.client, last)
        elif kind == "attachedAgain":
            # It should have been a word that refers to it; the file's own tokens are what it costs.
            broken = computed(server.client, last)
            erase(server)
            computed(server.client, first)
            at = [f for f in found if f["line"] == len(log)][0]
            text = last["messages"][-1]["content"]
            plain = {**last, "messages": last["messages"][:-1] + [{"role": "user", "content": text[: at["start"]] + text[at["end"]:]}]}
            fixed = computed(server.client, plain)
        elif kind is None:
            # Only what is new was computed: the front that both have was there.
            broken = computed(server.client, last)
            before, now = tokens(server.client, first), tokens(server.client, last)
            common = next(i for i, (a, b) in enumerate(zip(before, now)) if a != b)
            fixed = len(now) - common
        else:
            broken = computed(server.client, last)
            erase(server)
            computed(server.client, first)
            fixed = computed(server.client, mended(log, last))
        difference = lost - (broken - fixed)
        print(f"{name:40} {lost:9} {broken - fixed:7} {difference:8}", flush=True)
        if abs(difference) > BLOCK:
            wrong.append(f"{name}: {lost} predicted, but the server computed {broken} instead of {fixed}")
    check(not wrong, wrong)


def named(place, processes, name):
    """What everybody calls it."""
    make, kind, cause, _, pause = actions.ACTIONS[name]
    log = actions.log(name)
    requests = [json.loads(line)["request"] for line in log]
    server = serve(place, processes)
    flags = ["--ttl", "2"] if cause == "expired" else []
    beside = Companion(place, server, *flags)
    processes.append(beside)
    for request in requests[:-1]:
        ask(beside.client, request)
        beside.quiet()
    last = requests[-1]
    if cause == "otherNamespace":
        equal(beside.kill(signal.SIGTERM), 0)
        processes.remove(beside)
        server.kill()
        server.model = server.model.with_name("other.gguf")
        server.start()
        beside.start()
        processes.append(beside)
        # The namespace is there once something was asked.
        ask(beside.client, {"messages": [{"role": "user", "content": "Another conversation, about something else. " * 8}]})
        beside.quiet()
    if cause == "expired":
        time.sleep(3)
        erase(server)
    prompt = place / "prompt.json"
    prompt.write_text(json.dumps(tokens(server.client, last)))
    spaces = kvstore("inspect", "namespaces", place / "store", "--json")["namespaces"]
    newest = max(space["id"] for space in spaces if space["identity"]["mode"] == "tokens")
    miss = kvstore("inspect", "why-miss", place / "store", prompt, "--namespace", newest, "--json")
    ask(beside.client, last)
    account = beside.last()
    equal(beside.kill(signal.SIGTERM), 0)
    sessions = kvstore("inspect", "sessions", place / "store", "--json")["sessions"]
    step = max((s for session in sessions for s in session["steps"]), key=lambda s: s["at"])
    found = [f["cause"] for f in kvstore("lint", "-", "--json", input="\n".join(log) + "\n")["findings"] if f["line"] == len(log) and f["kind"] != "lowHitRate"]
    return {"lint": found[0] if found else "forked" if kind is None else None, "why-miss": miss["cause"], "companion": account.get("cause"), "session": step["cause"]}


def names(place, processes):
    wrong = []
    print(f"{'action':40} {'lint':15} {'why-miss':15} {'companion':15} session")
    for number, (name, (_, _, cause, _, _)) in enumerate(actions.ACTIONS.items()):
        sub = place / f"{number}"
        sub.mkdir()
        mine = []
        try:
            said = named(sub, mine, name)
        finally:
            for process in mine:
                process.kill()
        print(f"{name:40} {said['lint']!s:15} {said['why-miss']!s:15} {said['companion']!s:15} {said['session']}", flush=True)
        if set(said.values()) != {cause}:
            wrong.append((name, cause, said))
    check(not wrong, wrong)


def test_what_they_cost(place, processes):
    cost(place, processes)


def test_what_they_are_called(place, processes):
    names(place, processes)


if __name__ == "__main__":
    sys.exit(run_all([test_what_they_cost, test_what_they_are_called], set(sys.argv[2:])))
