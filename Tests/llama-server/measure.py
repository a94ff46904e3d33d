#!/usr/bin/env python3
"""Measures kvstore-llama with a real model, the arms in turn. Called by Scripts/demo-llama-server and Benchmarks/llama-server.

measure.py MODEL PART...   each part with its settings: first-token:TOKENS:ROUNDS:RESTARTS, miss:ROUNDS, passing:ROUNDS,
                           streaming:ROUNDS, bytes:CONVERSATIONS, bytes-attention:CONVERSATIONS, peers:TOKENS:ROUNDS
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from harness import HERE, MODELS, WORK, Client, Companion, Server, free_port, random_tokens, wait_for


def first_token(port, words, answer_tokens=8):
    """Milliseconds to the first piece of an answer and to its end, its pieces, and the server's figures; for a text, or for
    messages, to which the answer is added."""
    import http.client

    talk = words if isinstance(words, list) else [{"role": "user", "content": words}]
    body = {
        "messages": talk,
        "max_tokens": answer_tokens,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    begin = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first, pieces, timings, said = None, 0, {}, ""
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        timings = event.get("timings", timings)
        if event.get("choices") and event["choices"][0]["delta"].get("content"):
            pieces += 1
            said += event["choices"][0]["delta"]["content"]
            if first is None:
                first = time.perf_counter() - begin
    end = time.perf_counter() - begin
    connection.close()
    talk.append({"role": "assistant", "content": said})
    return first * 1e3, end * 1e3, pieces, timings


def show(name, values, note="", unit="ms"):
    values = sorted(values)
    print(
        f"  {name:34} median {statistics.median(values):9.2f} {unit}   "
        f"{values[0]:9.2f} … {values[-1]:9.2f}   {note}",
        flush=True,
    )


def title(text):
    print(f"{text}  (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)", flush=True)


def prose():
    text = ""
    for name in ("GPL-3", "GPL-2", "LGPL-2.1", "Artistic", "Apache-2.0", "MPL-2.0", "GFDL-1.3", "GPL-1"):
        path = pathlib.Path("/usr/share/common-licenses") / name
        text += path.read_text() if path.exists() else ""
    return text


def prompt(server, size):
    tokens = server.client.post("/tokenize", {"content": prose()}).json["tokens"]
    return server.client.post("/detokenize", {"tokens": tokens[: size - 20]}).json["content"]


def uncached(folder):
    """What was written is read from disk the next time."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def ratios(arms, without=("cold", "miss")):
    cold = statistics.median(arms["cold"])
    for name, values in arms.items():
        if not values:
            continue
        note = f"{cold / statistics.median(values):.1f} × sooner, {cold / max(values):.1f} × at worst"
        show(name, values, "" if name in without else note)


def tell_if_slow(values, cold, beside):
    """What was looked up, where it was hardly sooner."""
    last = beside.last()
    if values[-1] > cold[-1] / 8:
        print(f"  {values[-1]:.0f} ms:", json.dumps(last), flush=True)
    return last


class Pair:
    def __init__(self, model, context, *flags):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="measure.", dir=WORK))
        self.server = Server(self.place, model, "-np", "1", "--cache-ram", "0", *flags, context=context)
        self.beside = Companion(self.place, self.server)

    def __enter__(self):
        return self.server, self.beside

    def __exit__(self, *_):
        self.beside.kill()
        self.server.kill()
        shutil.rmtree(os.path.realpath(self.place / "slots"), ignore_errors=True)
        shutil.rmtree(self.place, ignore_errors=True)


def first_tokens(model, size, rounds, restarts):
    """Cold, missed, restored after restarts, and warm; the server's own slot file, restored by hand, beside them."""
    with Pair(model, size + 1024) as (server, beside):
        part = prompt(server, size)
        names = ("cold", "miss", "server restarted", "both restarted, from disk", "memory", "memory, direct", "slot file by hand")
        arms, recomputed, besides = {name: [] for name in names}, [], {"cold": [], "miss": []}

        def timed(name, port, words):
            """Also what is no prefill: that differs by more from one run to the next."""
            value, _, _, timings = first_token(port, words)
            arms[name].append(value)
            besides[name].append(value - timings["prompt_ms"])

        title(f"time to first token, {size} tokens, {rounds} rounds of {restarts} restarts, the arms in turn")
        for index in range(rounds):
            # Another first word each time, so that nothing is stored of it.
            fresh = f"Draft {index} of {size}. " + part
            server.client.post("/slots/0?action=erase", {})
            timed("cold", server.port, fresh)
            server.client.post("/slots/0?action=save", {"filename": "hand"})
            server.client.post("/slots/0?action=erase", {})
            timed("miss", beside.port, fresh)
            beside.quiet()
            for _ in range(restarts):
                server.kill()
                server.start()
                wait_for("the companion", lambda: beside.client.get("/health").status == 200)
                arms["server restarted"].append(first_token(beside.port, fresh)[0])
                tell_if_slow(arms["server restarted"], arms["cold"], beside)
                beside.quiet()
                beside.kill()
                server.kill()
                uncached(beside.place / "store")
                server.start()
                beside.start()
                arms["both restarted, from disk"].append(first_token(beside.port, fresh)[0])
                last = tell_if_slow(arms["both restarted, from disk"], arms["cold"], beside)
                beside.quiet()
                arms["memory"].append(first_token(beside.port, fresh)[0])
                beside.quiet()
                arms["memory, direct"].append(first_token(server.port, fresh)[0])
            # Alone with the server: what is used from elsewhere while it is looked at is passed through for a while.
            beside.kill()
            server.kill()
            server.start()
            begin = time.perf_counter()
            server.client.post("/slots/0?action=restore", {"filename": "hand"})
            restored = (time.perf_counter() - begin) * 1e3
            value, _, _, timings = first_token(server.port, fresh)
            arms["slot file by hand"].append(restored + value)
            recomputed.append(timings.get("prompt_n"))
            (pathlib.Path(os.path.realpath(server.slots_folder)) / "hand").unlink()
            beside.start()
        ratios(arms)
        show("cold, beside its prefill", besides["cold"])
        more = statistics.median(besides["miss"]) - statistics.median(besides["cold"])
        show("miss, beside its prefill", besides["miss"], f"{more:+.2f} ms")
        print(f"  computed again after a slot file by hand: {recomputed} tokens")
        print("  steps of the last restored from disk, ms:", json.dumps(last["steps_ms"]), "reused", last["restored"], flush=True)


def misses(rounds):
    """Direct and through, prompts of 2,048 tokens that nobody has: a tiny model, whose prefill hides nothing."""
    with Pair("attention", 4096) as (server, beside):
        title(f"a miss of 2,048 tokens, {rounds} rounds")
        direct, through = [], []
        for index in range(rounds):
            for port, values in ((server.port, direct), (beside.port, through)):
                tokens = random_tokens(2048, f"{index} {port}")
                text = "".join(chr(token - 227) if token > 259 else "a" for token in tokens[1:])
                server.client.post("/slots/0?action=erase", {})
                values.append(first_token(port, text)[0])
                beside.quiet()
        show("direct", direct)
        show("through", through, f"{statistics.median(through) - statistics.median(direct):+.2f} ms")


def passing(model, rounds):
    with Pair(model, 2048) as (server, beside):
        title(f"a request that passes, {rounds} rounds")
        direct, through = [], []
        for index in range(rounds + 20):
            for port, values in ((server.port, direct), (beside.port, through)):
                begin = time.perf_counter()
                Client(port).get("/v1/models")
                if index >= 20:
                    values.append((time.perf_counter() - begin) * 1e3)
        show("direct", direct)
        show("through", through, f"{statistics.median(through) - statistics.median(direct):+.2f} ms")


def streaming(model, rounds):
    with Pair(model, 2048) as (server, beside):
        title(f"a streamed token, {rounds} rounds of 128")
        direct, through = [], []
        for _ in range(rounds):
            for port, values in ((server.port, direct), (beside.port, through)):
                beside.quiet()
                first, end, pieces, _ = first_token(port, "Count up from one.", 128)
                values.append((end - first) / max(1, pieces - 1))
        show("direct", direct)
        show("through", through, f"{statistics.median(through) - statistics.median(direct):+.3f} ms")


def bytes_stored(model, conversations):
    """Conversations on one system prompt: what the store holds, and what whole slot files of the same slots take."""
    with Pair(model, 4096) as (server, beside):
        front = prompt(server, 1800)
        title(f"bytes of {conversations} conversations on a system prompt of 1,800 tokens, two turns each")
        each, last = 0, 0
        folder = pathlib.Path(os.path.realpath(server.slots_folder))
        for index in range(conversations):
            talk = [{"role": "system", "content": front}]
            for turn in range(2):
                talk.append({"role": "user", "content": f"Question {index}.{turn}: what does it say of section {index}?"})
                body = {"messages": talk, "max_tokens": 32, "temperature": 0}
                answer = beside.client.post("/v1/chat/completions", body, timeout=3600)
                talk.append({"role": "assistant", "content": answer.json["choices"][0]["message"]["content"]})
                beside.quiet()
                server.client.post("/slots/0?action=save", {"filename": "hand"})
                size = (folder / "hand").stat().st_size
                each, last = each + size, last + (size if turn == 1 else 0)
                (folder / "hand").unlink()
        lines = beside.client.get("/metrics").body.decode().splitlines()
        payload = sum(float(line.split(" ")[-1]) for line in lines if line.startswith("kvstore_payload_bytes{"))
        disk = sum(path.stat().st_blocks * 512 for path in (beside.place / "store").rglob("*"))
        print(f"  whole slot files   {each / 2**20:9.1f} MiB, one for each turn; {last / 2**20:.1f} MiB, one for each conversation's end")
        print(f"  store              {payload / 2**20:9.1f} MiB of payload: 1/{each / payload:.1f} and 1/{last / payload:.1f}; "
              f"{disk / 2**20:.1f} MiB of disk, free slots in its files included", flush=True)
        # The conversations are all there: after a restart one goes on from its end.
        beside.kill()
        server.kill()
        server.start()
        beside.start()
        body = {"messages": talk + [{"role": "user", "content": "Go on."}], "max_tokens": 2}
        usage = beside.client.post("/v1/chat/completions", body, timeout=3600).json["usage"]
        print(f"  the last one after a restart: {usage['prompt_tokens_details']['cached_tokens']} of {usage['prompt_tokens']} tokens cached", flush=True)


def peers(model, size, rounds):
    """The second turn of a conversation after a restart of server and proxy: with kvstore-llama, and with proxies that keep whole
    slots, where they are installed: HEARTH (its command), PROXYCACHE (a folder with its proxycache.py, and a Python in
    PROXYCACHE_PYTHON)."""
    known = {name: os.environ.get(name) for name in ("HEARTH", "PROXYCACHE")}
    place = pathlib.Path(tempfile.mkdtemp(prefix="peers.", dir=WORK))
    server = Server(place, model, "-np", "1", "--cache-ram", "0", context=size + 1024)
    beside = Companion(place, server)
    beside.kill()
    process = None

    def start(name):
        nonlocal process
        if name == "kvstore-llama":
            beside.start()
            return beside.port
        port = free_port()
        log = open(place / f"{name}.log", "ab")
        url = f"http://127.0.0.1:{server.port}"
        if name == "HEARTH":
            command, environment = [known[name], "serve", "--upstream", url, "--port", str(port)], {}
            command += ["--cache-dir", os.path.realpath(server.slots_folder)]
        else:
            command = [os.environ["PROXYCACHE_PYTHON"], str(pathlib.Path(known[name]) / "proxycache.py")]
            backends = json.dumps([{"url": url, "n_slots": 1}])
            environment = {"BACKENDS": backends, "PORT": str(port), "META_DIR": str(place / "meta")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=place)
        log.close()

        def is_up():
            try:
                return Client(port).get("/v1/models", timeout=5).status < 600
            except OSError:
                return False

        wait_for(name, is_up)
        return port

    def stop():
        nonlocal process
        beside.kill()
        if process:
            process.kill()
            process.wait()
            process = None
        server.kill()

    names = ["kvstore-llama"] + [name for name, path in known.items() if path]
    arms, second, computed = {name: [] for name in names}, {name: [] for name in names}, {name: [] for name in names}
    try:
        part = prompt(server, size)
        title(f"the second turn after a restart of both, {size} tokens, {rounds} rounds, the arms in turn")
        for index in range(rounds):
            for name in names:
                talk = [{"role": "user", "content": f"Round {index} with {name}. " + part}]
                port = start(name)
                arms[name].append(first_token(port, talk)[0])
                if name == "kvstore-llama":
                    beside.quiet()
                time.sleep(2)
                stop()
                server.start()
                port = start(name)
                talk.append({"role": "user", "content": "And what else?"})
                value, _, _, timings = first_token(port, talk)
                second[name].append(value)
                computed[name].append(timings.get("prompt_n"))
                stop()
                server.start()
        for name in names:
            show(name.lower() + ", first turn", arms[name])
            cold = statistics.median(arms[name])
            note = f"{cold / statistics.median(second[name]):.1f} × sooner; computed {computed[name]}"
            show(name.lower() + ", second turn", second[name], note)
    finally:
        stop()
        for name in ("HEARTH", "PROXYCACHE"):
            if os.environ.get("KVSTORE_LLAMA_LOGS") and (place / f"{name}.log").exists():
                print((place / f"{name}.log").read_text()[-3000:])
        shutil.rmtree(os.path.realpath(place / "slots"), ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


def main():
    model = sys.argv[1]
    for part in sys.argv[2:]:
        name, *numbers = part.split(":")
        numbers = [int(number) for number in numbers]
        if name in ("miss", "bytes-attention"):
            # A tiny model with attention alone.
            MODELS.mkdir(exist_ok=True)
            tiny = MODELS / "attention.gguf"
            subprocess.run([sys.executable, HERE / "make_model.py", "attention", tiny], check=True)
            misses(*numbers) if name == "miss" else bytes_stored(tiny, *numbers)
        else:
            parts = {"first-token": first_tokens, "passing": passing, "streaming": streaming, "bytes": bytes_stored, "peers": peers}
            parts[name](model, *numbers)


if __name__ == "__main__":
    main()
