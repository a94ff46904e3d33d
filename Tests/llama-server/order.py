"""What happens before an answer, and what only behind it."""
import signal
import threading

from harness import Between, Companion, Server, check, equal
from support import BLOCK, SYSTEM, chat, pair, restart, said

CHAT = "POST /v1/chat/completions"


def behind(place, processes, kind, at, *flags):
    """A server, and a companion that reaches it through something that tells what goes by."""
    place.mkdir(exist_ok=True)
    server = Server(place, kind, "-np", "1", "--cache-ram", "0", *flags)
    processes.append(server)
    beside = Companion(place, Between(server, at=at))
    processes.append(beside)
    return server, beside


def order(seen, first, then):
    """Whether the one came before the other; each is when, and what the line has in it."""

    def place(wanted):
        found = (i for i, (when, line) in enumerate(seen) if when == wanted[0] and wanted[1] in line)
        return next(found, None)

    a, b = place(first), place(then)
    check(a is not None and b is not None, "not seen:", first, then, seen)
    return a < b


def talk_of(count):
    return [{"role": "system", "content": SYSTEM * count}, {"role": "user", "content": "why?"}]


def test_nothing_waits_for_a_save(place, processes):
    """An answer comes before anything is saved, and both its end and its prompt's end are saved behind it."""
    for kind in ("attention", "window", "hybrid"):
        seen = []
        server, beside = behind(place / kind, processes, kind, lambda when, line: seen.append((when, line)))
        seen.clear()
        chat(beside.client, talk_of(2))
        beside.quiet()
        check(order(seen, ("answered", CHAT), ("asked", "action=save")), kind, seen)
        saves = sum(when == "asked" and "action=save" in line for when, line in seen)
        equal(saves, 1 if kind == "attention" else 2, kind, "saves")
        # Asked again, it is in memory but for its last token.
        used, total, tier = chat(beside.client, talk_of(2)).prefix
        equal((total - used, tier), (1, "memory"), kind)
        beside.quiet()
        beside.kill(signal.SIGTERM)
        server.kill()


def test_answer_goes_on_behind_its_prompts_end(place, processes):
    """The slot is left at the prompt's end; who goes on from the answer finds that as well."""
    for kind in ("window", "hybrid"):
        (place / kind).mkdir()
        server, beside = pair(place / kind, processes, kind, "-np", "1", "--cache-ram", "0")
        talk = talk_of(2)
        first = chat(beside.client, talk, 100)
        beside.quiet()
        talk += [{"role": "assistant", "content": said(first)}, {"role": "user", "content": "and?"}]
        usage = first.json["usage"]
        used, _, _ = chat(beside.client, talk).prefix
        check(used >= usage["total_tokens"] - BLOCK - 1, kind, used, usage)
        beside.quiet()
        beside.kill(signal.SIGTERM)
        server.kill()


def test_new_prompt_does_not_wait_for_its_tokens(place, processes):
    """The server is asked while the tokens of a prompt that begins like no other are still on their way; not so for one that is known."""
    asked, late, count = threading.Event(), [], [0]

    def at(when, line):
        if CHAT in line:
            asked.set()
        if when == "answered" and "POST /tokenize" in line:
            count[0] += 1
            # The second one tells the whole prompt.
            if count[0] == 2 and not asked.wait(5):
                late.append(line)

    server, beside = behind(place, processes, "window", at)
    count[0] = 0
    asked.clear()
    first = chat(beside.client, talk_of(6))
    equal((count[0], late), (2, []), "waited for")
    total = first.json["usage"]["prompt_tokens"]
    equal(first.prefix[:2], (0, total))
    beside.quiet()
    equal(beside.last()["tokens"], total)
    restart(server, beside)
    count[0] = 3
    equal(chat(beside.client, talk_of(6)).prefix, (total - 1, total, "disk"))


def test_server_without_checkpoints(place, processes):
    """It does not go back to a prompt's end: that is saved on the way to the answer; known by its flags, else learnt once."""
    seen = []
    flags = ("--ctx-checkpoints", "0")
    server, beside = pair(place, processes, "hybrid", "-np", "1", "--cache-ram", "0", *flags)
    talk = talk_of(2)
    total = chat(beside.client, talk).json["usage"]["prompt_tokens"]
    beside.quiet()
    restart(server, beside)
    equal(chat(beside.client, talk).prefix, (total - 1, total, "disk"))
    beside.kill(signal.SIGTERM)
    server.kill()
    server, beside = behind(
        place / "unseen", processes, "hybrid", lambda when, line: seen.append((when, line)), *flags
    )
    for turn in range(2):
        seen.clear()
        talk = talk_of(2)
        talk[0]["content"] = f"{turn}: " + talk[0]["content"]
        chat(beside.client, talk)
        beside.quiet()
        equal(order(seen, ("answered", CHAT), ("asked", "action=save")), turn == 0, seen)
