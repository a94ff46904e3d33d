"""Two companions with stores of their own, and one Redis or Valkey: what one stores, the other restores from there."""
import os
import pathlib
import subprocess
import sys
import time

from harness import COMPANION, Skipped, cached, check, equal, free_port, random_tokens, text_of, wait_for
from support import BLOCK, agree, pair

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "remote"))

# 64 blocks of the tiny model are a chunk.
CHUNK = 4096


def remote(processes):
    import servers

    programs = servers.programs()
    if not programs:
        raise Skipped("neither redis-server nor valkey-server can be had")
    started = servers.Servers().__enter__()

    class Ends:
        @staticmethod
        def kill(*_):
            started.__exit__()

    processes.append(Ends())
    return started.server(next(iter(programs.values())))


def flags(url, wait=60):
    """A busy machine is no reason to miss."""
    words = {"": url, "-writes": "all", "-wait-seconds": wait, "-look-up-timeout-seconds": min(wait, 30)}
    return [word for name, value in words.items() for word in (f"--remote{name}", str(value))]


def another(place, processes, name, *flags, kind="attention"):
    """A machine whose store is empty."""
    folder = place / name
    folder.mkdir()
    return pair(folder, processes, kind, "-np", "1", companion=flags)


def all_sent(store, beside, count):
    """What a request leaves to be sent comes to the queue once it is durable: when that has been empty for two seconds, all is there."""
    beside.quiet()
    wait_for("what is sent", lambda: store.do("DBSIZE") >= count)
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < 2:
        if (there := store.do("DBSIZE")) != seen or beside.metric('kvstore_remote_queued{what="sends"}'):
            seen, since = there, time.monotonic()
        time.sleep(0.05)
    return seen


def ends_go_there(place, processes, kind):
    """Where a prefix can be gone on from at ends only: blocks, state and windows come, and the answer is that of one machine."""
    store = remote(processes)
    prompt = random_tokens(1000, 7)
    more = prompt + random_tokens(60, 8)[1:]
    server, beside = another(place, processes, "a", *flags(store.url()), kind=kind)
    beside.client.complete(prompt, 0)
    all_sent(store, beside, 3)
    # From the server itself, which stores nothing: a later end there would be looked at first, and is not a beginning of this prompt.
    here = server.client.complete(more, 16, id_slot=0)
    server.kill(), beside.kill()
    server, beside = another(place, processes, "b", *flags(store.url()), kind=kind)
    there = beside.client.complete(more, 16)
    check(there.prefix[0] >= len(prompt) - 1 - BLOCK and there.prefix[2] == "host", there.prefix, beside.last())
    agree(there, here, "restored from there")


def test_remote_tier_recurrent(place, processes):
    ends_go_there(place, processes, "recurrent")


def test_remote_tier_hybrid(place, processes):
    ends_go_there(place, processes, "hybrid")


def test_remote_tier_window(place, processes):
    ends_go_there(place, processes, "window")


def test_remote_tier(place, processes):
    store = remote(processes)
    prompt = random_tokens(CHUNK + 60, 7)
    server, beside = another(place, processes, "a", *flags(store.url()))
    first = beside.client.complete(prompt, 16)
    equal(first.prefix, (0, len(prompt), "none"))
    beside.quiet()
    # The identity record, and one chunk.
    wait_for("what is sent", lambda: store.do("DBSIZE") >= 2)
    server.kill(), beside.kill()

    server, beside = another(place, processes, "b", *flags(store.url()))
    warm = beside.client.complete(prompt, 16)
    equal(warm.prefix, (CHUNK, len(prompt), "host"), beside.last())
    check(cached(warm) >= CHUNK, warm.json["timings"])
    agree(warm, first, "restored from there")
    equal(beside.metric("kvstore_remote_blocks_fetched_total"), CHUNK // 64, "blocks that came from there")
    # Now it is here.
    store.do("FLUSHALL")
    server.client.post("/slots/0?action=erase", {})
    again = beside.client.complete(prompt, 16)
    check(again.prefix[0] >= CHUNK, again.prefix)
    equal(text_of(again), text_of(warm), "the answer")


def test_remote_tier_that_stops_and_dies(place, processes):
    """Requests are answered, by what is here."""
    store = remote(processes)
    server, beside = another(place, processes, "b", *flags(store.url(), wait=0.5))
    store.stop()
    prompts = [random_tokens(CHUNK + 60, seed) for seed in range(3)]
    alone = [server.client.complete(prompt, 8, id_slot=0, cache_prompt=False) for prompt in prompts]
    stopped = beside.client.complete(prompts[0], 8)
    # All prompts have the first token in common, which the slot has.
    check(stopped.prefix[0] <= 1, stopped.prefix)
    agree(stopped, alone[0], "beside one that is stopped")
    store.go_on()
    store.kill()
    for prompt, right in zip(prompts[1:], alone[1:]):
        dead = beside.client.complete(prompt, 8)
        check(dead.prefix[0] <= 1, dead.prefix)
        agree(dead, right, "beside one that is dead")
    beside.quiet()
    # What is here is found.
    again = beside.client.complete(prompts[1], 8)
    check(again.prefix[0] >= CHUNK, again.prefix)


def test_remote_tier_with_bad_settings(place, processes):
    """The start ends with the option's name; also where it is a variable."""
    (place / "slots").mkdir(mode=0o700)
    command = [COMPANION, "--server", "http://127.0.0.1:1", "--listen", f"127.0.0.1:{free_port()}"]
    command += ["--store", str(place / "store"), "--slots", str(place / "slots")]
    key = place / "key"
    key.write_bytes(bytes(32))
    key.chmod(0o644)
    for words, variables, said in (
        (["--remote", "cache"], {}, "URL"),
        (["--remote", "redis://cache", "--remote-writes", "some"], {}, "--remote-writes"),
        (["--remote", "redis://cache", "--remote-key-file", str(key)], {}, "remote_key_file"),
        (["--remote", "redis://cache"], {"KVSTORE_REMOTE_KEY_FILE": str(key)}, "remote_key_file"),
        (["--remote-key-file", str(key)], {}, "--remote is not"),
        ([], {"KVSTORE_REMOTE": "redis://me:secret@cache"}, "URL"),
        (["--remote", "redis://cache", "--remote-wait-seconds", "soon"], {}, "--remote-wait-seconds"),
    ):
        done = subprocess.run(
            command + words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
        )
        check(done.returncode not in (0, None), words, done.stderr[-500:])
        check(said in done.stderr and "secret" not in done.stderr, words, done.stderr[-500:])
