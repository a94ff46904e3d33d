"""Real clients and a browser."""
import json
import os
import shutil
import subprocess
import time

from harness import HERE, Skipped, check, equal
from support import BLOCK, SYSTEM, chat, pair, restart


def test_openai_and_anthropic_packages(place, processes):
    """What the packages that people use read out of answers, streams, headers and errors."""
    python = os.environ.get("KVSTORE_LLAMA_CLIENTS")
    if not python:
        raise Skipped("KVSTORE_LLAMA_CLIENTS names no Python with the openai and anthropic packages")
    server, beside = pair(place, processes, "attention", "-np", "3", "--cache-ram", "0")
    for turn in range(2):
        command = [python, HERE / "client_program.py", f"http://127.0.0.1:{beside.port}", SYSTEM]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        equal(done.returncode, 0, done.stderr[-2000:])
        seen = json.loads(done.stdout)
        for name in ("chat", "responses"):
            first, again = seen[name + " first"], seen[name + " again"]
            equal(again[1] > 900, True, name, seen)
            equal(first[1] > 900, turn == 1, name, "cached by the first request of turn", turn, seen)
        check(seen["chat stream"][1] > 900, seen)
        check("/" in seen["header"], seen)
        equal(seen["too long"], 400, seen)
        created, read, rest = seen["messages first"]
        equal(created + read + rest, seen["count"], seen)
        if turn == 0:
            check(created > 1024 and read < BLOCK, seen)
            equal(seen["hour first"], created, seen)
        else:
            check(read > 1024 and created < BLOCK, seen)
        for name in ("messages again", "messages stream"):
            created, read, rest = seen[name]
            equal(created + read + rest, seen["count"], name, seen)
            check(read > 1024 and created < BLOCK, name, seen)
        beside.quiet()
        restart(server, beside)


def test_page_in_a_browser(place, processes):
    """/kvstore in headless Chromium: what is there is shown, in light and dark, and a request's text stays text."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        raise Skipped("no Chromium")
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    for mark in ("plain words", "<b id=evil><script>document.title='evil'</script></b>"):
        chat(beside.client, [{"role": "system", "content": mark + SYSTEM}, {"role": "user", "content": "hello"}])
    beside.quiet()

    def open_page(*more):
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={place}/profile"]
        command += ["--window-size=1200,900", "--virtual-time-budget=4000", *more, f"http://127.0.0.1:{beside.port}/kvstore"]
        return subprocess.run(command, capture_output=True, timeout=60).stdout.decode(errors="replace")

    page = open_page("--dump-dom")
    for part in ("beside ", "requests looked up", "/v1/chat/completions", "messages[0].content", "idle"):
        check(part in page, part, "is not shown:", page[-3000:])
    check("&lt;" in page and "<b id=\"evil\">" not in page, "a request's text became part of the page", page[page.find("why"):][-3000:])
    check("<title>kvstore-llama</title>" in page, "a request's text was run")
    shots = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        path = place / f"{name}.png"
        open_page(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={path}")
        shots[name] = path
        if keep := os.environ.get("KVSTORE_LLAMA_SHOTS"):
            shutil.copy(path, keep)
    background = {name: corner(path) for name, path in shots.items()}
    check(min(background["light"]) > 200, background)
    check(max(background["dark"]) < 80, background)
    server.kill()
    time.sleep(0.6)
    check("away" in open_page("--dump-dom"), "a server that is gone is not shown")


def corner(path):
    """The colour of a PNG's first pixel."""
    import struct
    import zlib

    data = path.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    equal(depth, 8)
    packed, at = b"", 8
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += 12 + size
    line = zlib.decompress(packed)
    # Whatever filter the first line has: nothing stands before its first pixel.
    return tuple(line[1:4])
