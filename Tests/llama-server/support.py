"""What several of the cases do."""
import signal

from harness import Companion, Server, check, equal, figures

BLOCK = 64


def pair(place, processes, kind="attention", *flags, companion=()):
    server = Server(place, kind, *flags)
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
