"""The HTTP surface: requests of all kinds as directly, and what is no request at all. Many with KVSTORE_LLAMA_LONG."""
import json
import os
import random
import socket

from harness import MODELS, Client, Companion, Server, check, equal, random_tokens
from support import SYSTEM, pair, settled

LONG = bool(os.environ.get("KVSTORE_LLAMA_LONG"))
TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object", "properties": {}}}}
HOSTED_TOOL = {"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {}}}


class Requests:
    """Requests as clients send them, made from a seed: conversations that grow, in every interface."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.talks = [[{"role": "user", "content": self.words(40)}] for _ in range(6)]

    def words(self, count):
        return " ".join(self.random.choice(["red", "green", "caf\u00e9", "\U0001f600", "a\"b", "c\\d", "\n"]) for _ in range(count))

    def talk(self):
        talk = self.random.choice(self.talks)
        if len(talk) > 6:
            del talk[1:]
        if len(talk) > 1 or self.random.random() < 0.5:
            talk += [{"role": "assistant", "content": self.words(5)}, {"role": "user", "content": self.words(9)}]
        return [dict(message) for message in talk]

    def next(self):
        pick = self.random.random
        more = {"temperature": 0, "seed": 1, "stream": pick() < 0.5}
        kind = self.random.randrange(12)
        if kind == 0:
            return "/completion", {"prompt": random_tokens(self.random.randrange(20, 700), self.random.randrange(5)), "n_predict": 3, **more}
        if kind == 1:
            return "/completion", {"prompt": self.words(60), "n_predict": 3, **more}
        if kind == 2:
            return "/v1/completions", {"prompt": self.words(60), "max_tokens": 3, **more}
        if kind == 3:
            return "/tokenize", {"content": self.words(20)}
        if kind == 4:
            return "/v1/responses", {"instructions": SYSTEM, "input": self.talk(), "max_output_tokens": 3, **more}
        if kind == 5:
            tools = {"tools": [HOSTED_TOOL]} if pick() < 0.5 else {}
            return "/v1/messages", {"system": SYSTEM, "messages": self.talk(), "max_tokens": 3, **tools, **more}
        if kind == 6:
            broken = self.random.choice([{"messages": 1}, {"messages": [{"role": 1}]}, {}, {"prompt": {}}, {"input": [1]}])
            path = self.random.choice(["/completion", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
            return path, broken
        body = {"messages": [{"role": "system", "content": SYSTEM}] + self.talk(), "max_tokens": 3, **more}
        if pick() < 0.2:
            body["tools"] = [TOOL]
        if pick() < 0.1:
            body["n"] = 2
        if pick() < 0.1:
            body["cache_prompt"] = False
        if pick() < 0.3:
            body["stream_options"] = {"include_usage": True}
        return self.random.choice(["/v1/chat/completions", "/chat/completions"]), body


def shape(answer):
    """Status, type and events of an answer, without its texts: near ties turn between one batch and another."""
    status, kind, text = settled(answer)
    if kind != "text/event-stream":
        return status, kind, text
    # A character may come in one piece or in several: pieces that are alike but for their text are one.
    lines = []
    for line in text.split("\n"):
        if line and (not lines or line != lines[-1]):
            lines.append(line)
    return status, kind, lines


def test_recorded_requests(place, processes):
    """Requests of all kinds, first directly and then through: status, type, body and events are the same."""
    server, beside = pair(place, processes, "attention", "-np", "1", "--cache-ram", "0")
    requests = Requests(7)
    for number in range(1000 if LONG else 120):
        path, body = requests.next()
        directly = server.client.post(path, body)
        through = beside.client.post(path, body)
        equal(shape(through), shape(directly), number, path, json.dumps(body)[:300])
    beside.quiet()
    equal(beside.metric("kvstore_llama_prompts_misjudged_total"), 0)
    check(beside.metric("kvstore_llama_prompt_tokens_restored_total") > 0, "nothing was restored")


def test_router(place, processes):
    """A server that starts one for each model, by the request's `model`: everything passes, and it is said why."""
    folder = place / "models"
    folder.mkdir()
    for name in ("attention", "hybrid"):
        (folder / f"{name}.gguf").symlink_to(MODELS / f"{name}.gguf")
    server = Server(place, None, "--models-dir", str(folder), "-np", "1")
    processes.append(server)
    beside = Companion(place, server)
    processes.append(beside)
    equal(beside.status()["standing"], "passing", beside.status())
    talk = [{"role": "user", "content": "hello " * 40}]
    cases = [("GET", "/v1/models", None), ("GET", "/props", None), ("GET", "/slots", None)]
    for model in ("attention", "hybrid", "nobody"):
        cases += [
            ("POST", "/v1/chat/completions", {"model": model, "messages": talk, "max_tokens": 3, "temperature": 0}),
            ("POST", "/v1/completions", {"model": model, "prompt": "one two", "max_tokens": 3, "temperature": 0, "stream": True}),
            ("POST", "/v1/messages", {"model": model, "messages": talk, "max_tokens": 3, "temperature": 0}),
            ("POST", "/tokenize", {"model": model, "content": "one two"}),
        ]
    for method, path, body in cases:
        directly = server.client.request(method, path, body)
        through = beside.client.request(method, path, body)
        equal(settled(through)[:2], settled(directly)[:2], method, path, body)
        if body and body["model"] != "nobody":
            equal(through.status, 200, path, body, through.body[:300])
    equal(beside.client.get("/health").status, 200)


def test_embeddings(place, processes):
    """A server for embeddings: the same numbers as directly."""
    server = Server(place, "attention", "-np", "1", "--embeddings", "--pooling", "mean")
    processes.append(server)
    beside = Companion(place, server)
    processes.append(beside)
    for path, body in (
        ("/v1/embeddings", {"input": "hello"}),
        ("/v1/embeddings", {"input": ["one", "two"], "model": "any"}),
        ("/embedding", {"content": "hello"}),
        ("/embeddings", {"content": "hello"}),
    ):
        directly = server.client.post(path, body)
        through = beside.client.post(path, body)
        equal((through.status, through.body), (directly.status, directly.body), path, body)
        equal(through.status, 200, path, through.body[:300])


def raw(port, data):
    """The first line of what comes back for bytes that may be no HTTP."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
                if len(answer) > 1 << 20:
                    break
        except OSError:
            pass
    return answer.split(b"\r\n")[0]


def test_fuzzed_surface(place, processes):
    """Mutated requests down to the bytes, on every path: no answer is 500 of ours, nothing ends, nothing is left open."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    source = random.Random(11)
    requests = Requests(12)
    own = ["/kvstore/warm", "/kvstore/prefetch", "/kvstore/requests/1", "/kvstore", "/metrics", "/health", "/kvstore/%00", "/v1/messages?x=%ff"]
    descriptors = len(os.listdir(f"/proc/{beside.process.pid}/fd"))
    for number in range(10_000 if LONG else 400):
        path, body = requests.next()
        body.pop("stream", None)
        data = json.dumps(body).encode()
        path = source.choice(own + [path] * 8)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
        head += source.choice(["", "x-kvstore-pin: 9e9\r\n", "x-kvstore-ttl: -1\r\n", "Expect: 100-continue\r\n", "x-api-key: \u00e9\r\n"])
        length = source.choice([len(data)] * 6 + [0, len(data) - 1, len(data) + 5, -1, 1 << 62])
        chunked = source.random() < 0.1
        wire = bytearray(head.encode("latin-1"))
        if chunked:
            wire += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
        else:
            wire += f"Content-Length: {length}\r\n\r\n".encode() + data
        for _ in range(source.randrange(4)):
            at = source.randrange(len(wire))
            if source.random() < 0.5:
                wire[at] = source.randrange(256)
            else:
                del wire[at : at + source.randrange(1, 9)]
        first = raw(beside.port, bytes(wire))
        check(beside.process.poll() is None, "the companion ended at", number, bytes(wire)[:500])
        check(b" 500 " not in first or server.process.poll() is None, number, first, bytes(wire)[:300])
        check(server.process.poll() is None, "the server ended at", number, bytes(wire)[:500])
    beside.client.complete(random_tokens(200, 2))
    beside.quiet()
    left = len(os.listdir(f"/proc/{beside.process.pid}/fd"))
    check(left < descriptors + 40, descriptors, "descriptors became", left)
    equal(os.listdir(os.path.realpath(server.slots_folder)), [])
