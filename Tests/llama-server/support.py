"""What several of the cases do."""
import json
import re
import signal
import socket

from harness import Companion, Server, check, equal, figures

BLOCK = 64


def pair(place, processes, kind="attention", *flags, companion=(), context=8192):
    server = Server(place, kind, *flags, context=context)
    processes.append(server)
    beside = Companion(place, server, *companion)
    processes.append(beside)
    equal(beside.status()["standing"], "attached", beside.status())
    return server, beside


def restart(server, beside, how=signal.SIGKILL):
    beside.kill(how)
    server.kill(how)
    server.start()
    beside.start()


def agree(a, b, *what):
    """The same answer but for noise: where they part, both tokens must be as likely."""
    for step_a, step_b in zip(figures(a), figures(b)):
        table = dict(step_b)
        difference = max((abs(value - table[token]) for token, value in step_a if token in table), default=9)
        check(difference < 0.2, *what, "logarithms differ by", difference)
        if step_a[0][0] != step_b[0][0]:
            check(step_b[0][1] - table.get(step_a[0][0], -9) < 0.2, *what, step_a, step_b)
            return


def chat(client, messages, count=12, headers=None, **more):
    body = {"messages": messages, "max_tokens": count, "temperature": 0, **more}
    answer = client.post("/v1/chat/completions", body, headers=headers)
    check(answer.status == 200, answer.status, answer.body[:300])
    return answer


def said(answer):
    return answer.json["choices"][0]["message"]["content"]


SYSTEM = "You are a careful assistant that answers in few words and never guesses. " * 12


def settled(answer):
    """An answer without what differs from one time to the next."""
    text = answer.body.decode(errors="replace")
    text = re.sub(r'"(id|created|created_at|completed_at|item_id|system_fingerprint)":("[^"]*"|[0-9.]+)', r'"\1":0', text)
    text = re.sub(r'"timings":\{[^}]*\}', '"timings":{}', text)
    text = re.sub(r'"(cached_tokens|cache_read_input_tokens|input_tokens|id_slot|tokens_cached)":[0-9-]+', r'"\1":0', text)
    text = re.sub(r'"(n_cache_reuse|index|t_[a-z_]*)":[0-9.-]+', r'"\1":0', text)
    kind = answer.headers.get("content-type", "").split(";")[0]
    # What the model says may turn on a near tie, between one batch and another.
    text = re.sub(r'"(content|text|delta|token|tokens)":("(?:[^"\\]|\\.)*"|\[[0-9, ]*\])', r'"\1":0', text)
    return answer.status, kind, text


class Stream:
    """One streamed request on a socket, so that it can be left."""

    def __init__(self, port, body, path="/completion"):
        data = json.dumps(body).encode()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n"
        self.socket.sendall(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        self.data = b""

    def event(self):
        self.until(b"data: ")

    def until(self, part):
        while part not in self.data:
            more = self.socket.recv(65536)
            check(more, "no", part, "came:", self.data[:300])
            self.data += more

    def is_whole(self):
        try:
            while more := self.socket.recv(65536):
                self.data += more
        except OSError:
            return False
        return self.data.endswith(b"0\r\n\r\n")

    def leave(self):
        # Another thread may be reading: closed alone, the connection would stay until it is done.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
