#!/usr/bin/env python3
"""Times to first token with a real model, cold and restored, the arms in turn. Called by Scripts/demo-llama-server."""
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from harness import WORK, Client, Companion, Server


def first_token(port, words, answer_tokens=8):
    """Milliseconds to the first piece of an answer and to its end, its pieces, and the server's figures."""
    import http.client

    body = {
        "messages": [{"role": "user", "content": words}],
        "max_tokens": answer_tokens,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1200)
    begin = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first, pieces, timings = None, 0, {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        timings = event.get("timings", timings)
        if event.get("choices") and event["choices"][0]["delta"].get("content"):
            pieces += 1
            if first is None:
                first = time.perf_counter() - begin
    end = time.perf_counter() - begin
    connection.close()
    return first * 1e3, end * 1e3, pieces, timings


def show(name, values, note=""):
    values = sorted(values)
    print(
        f"  {name:34} median {statistics.median(values):9.1f} ms   "
        f"{values[0]:9.1f} … {values[-1]:9.1f}   {note}",
        flush=True,
    )


def main():
    model, sizes, rounds = sys.argv[1], [int(size) for size in sys.argv[2].split(",")], int(sys.argv[3])
    place = pathlib.Path(tempfile.mkdtemp(prefix="measure.", dir=WORK))
    text = ""
    for name in ("GPL-3", "GPL-2", "LGPL-2.1", "Artistic", "Apache-2.0", "MPL-2.0"):
        path = pathlib.Path("/usr/share/common-licenses") / name
        text += path.read_text() if path.exists() else ""
    context = max(sizes) + 1024
    server = Server(place, model, "-np", "1", "--cache-ram", "0", context=context)
    beside = Companion(place, server)
    try:
        tokens = server.client.post("/tokenize", {"content": text}).json["tokens"]
        for size in sizes:
            part = server.client.post("/detokenize", {"tokens": tokens[: size - 20]}).json["content"]
            arms = {name: [] for name in ("cold", "miss", "server restarted", "both restarted", "memory", "memory, direct")}
            print(f"{size} tokens, {rounds} rounds, the arms in turn", flush=True)
            for index in range(rounds):
                # Another first word each time, so that nothing is stored of it.
                fresh = f"Draft {index} of {size}. " + part
                server.client.post("/slots/0?action=erase", {})
                arms["cold"].append(first_token(server.port, fresh)[0])
                server.client.post("/slots/0?action=erase", {})
                arms["miss"].append(first_token(beside.port, fresh)[0])
                beside.quiet()
                time.sleep(0.5)
                server.kill()
                server.start()
                time.sleep(2)
                begin = first_token(beside.port, fresh)
                arms["server restarted"].append(begin[0])
                beside.quiet()
                time.sleep(0.3)
                beside.kill()
                server.kill()
                server.start()
                beside.start()
                restored = first_token(beside.port, fresh)
                arms["both restarted"].append(restored[0])
                beside.quiet()
                arms["memory"].append(first_token(beside.port, fresh)[0])
                beside.quiet()
                arms["memory, direct"].append(first_token(server.port, fresh)[0])
            cold = statistics.median(arms["cold"])
            for name, values in arms.items():
                ratio = cold / statistics.median(values)
                worst = cold / max(values)
                note = "" if name in ("cold", "miss") else f"{ratio:.0f} × sooner, {worst:.0f} × at worst"
                if name == "miss":
                    note = f"{statistics.median(values) - cold:+.1f} ms"
                show(name, values, note)
            last = beside.last()
            print("  steps of the last, ms:", json.dumps(last["steps_ms"]), "reused", max(last["memory"], last["restored"]))
        direct, through = [], []
        for _ in range(200):
            for port, list_ in ((server.port, direct), (beside.port, through)):
                begin = time.perf_counter()
                Client(port).get("/v1/models")
                list_.append((time.perf_counter() - begin) * 1e3)
        print("a request that passes")
        show("direct", direct)
        show("through", through, f"{statistics.median(through) - statistics.median(direct):+.2f} ms")
        direct, through = [], []
        for _ in range(5):
            for port, list_ in ((server.port, direct), (beside.port, through)):
                beside.quiet()
                first, end, pieces, _ = first_token(port, "Count up from one.", 128)
                list_.append((end - first) / max(1, pieces - 1))
        print("a streamed token")
        show("direct", direct)
        show("through", through, f"{statistics.median(through) - statistics.median(direct):+.3f} ms")
        status = beside.status()
        print(f"store: {status['store']['bytes_used'] / 1e6:.0f} MB used")
    finally:
        beside.kill()
        server.kill()
        shutil.rmtree(os.path.realpath(place / "slots"), ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
