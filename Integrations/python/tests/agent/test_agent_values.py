"""Canonical JSON, keys, and values of any size in a store."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, open_store

from kvstore import Prompt
from kvstore.agent import STORED_BYTES_MAX, AgentStore, NotCanonicalError, Scope, TooLargeError, canonical
from kvstore.agent.canonical import digest
from kvstore.agent.pieces import Recent, digests_of, packed, unpacked

# The example of RFC 8785, section 3.2.2, and the order of section 3.2.3.
RFC = {
    "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": '\u20ac$\u000f\nA\'B"\\\\"/',
    "literals": [None, True, False],
}
RFC_TEXT = (
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
    '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
)
ORDER = ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


def test_the_examples_of_the_standard() -> None:
    assert canonical(RFC).decode() == RFC_TEXT
    assert list(json.loads(canonical({name: 1 for name in sorted(ORDER)}))) == ORDER


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (5e-324, "5e-324"), (-5e-324, "-5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"), (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"), (1e23, "1e+23"), (1.0000000000000001e23, "1.0000000000000001e+23"),
        (999999999999999700000.0, "999999999999999700000"), (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"), (9.999999999999997e-7, "9.999999999999997e-7"), (0.000001, "0.000001"),
        (333333333.3333332, "333333333.3333332"), (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
    ],
)  # fmt: skip
def test_numbers_as_the_standard_lists_them(number: float, text: str) -> None:
    assert canonical(number).decode() == text


def test_numbers_read_back_and_agree_with_another_implementation() -> None:
    # A package that only some have; without it the numbers are read back alone.
    other = importlib.import_module("rfc8785") if importlib.util.find_spec("rfc8785") else None
    source = random.Random(8785)
    for _ in range(20_000):
        (number,) = struct.unpack("<d", source.randbytes(8))
        if math.isfinite(number):
            text = canonical(number)
            assert float(text) == number
            assert other is None or text == other.dumps(number)


def test_what_has_no_canonical_form_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (math.nan, math.inf, 2**53, -(2**53), "\ud800", {1: "a"}, b"bytes", {1, 2}, loop, object()):
        with pytest.raises(NotCanonicalError):
            canonical(value)


def test_digests_are_equal_for_equal_json_alone() -> None:
    assert digest({"a": 1, "b": [1.0, 2]}) == digest({"b": (1, 2.0), "a": 1e0})
    different = [
        1, True, "1", None, [], {}, [1], {"1": 1}, "", "null", [None], [[]], 2**53, 2**53 + 1, float(2**53), str(2**53), -1, 0.1,
        12345678901234567000, 1.2345678901234567e19, "12345678901234567000n", [[1], 2], [1, [2]], {"a": None},
    ]  # fmt: skip
    assert len({digest(value) for value in different}) == len(different)


@pytest.mark.parametrize("size", [0, 1, 300, 8_191, 8_193, 40_000, 262_144, 262_145, 3_000_000])
def test_values_of_any_size(path: Path, size: int) -> None:
    values = [random.Random(size).randbytes(size), (b"the same again and " * (size // 19 + 1))[:size]]
    # In the opening that stored them, and in another one.
    for opening in range(2):
        with open_store(path) as opened, AgentStore(opened) as agents:
            for number, content in enumerate(values):
                assert opening or agents.put(["k", number], content, durable=True)
                entry = agents.get(["k", number])
                assert entry is not None and entry.value == content


def test_a_value_that_grows_shares_all_but_its_end_in_every_opening(path: Path) -> None:
    source = random.Random(1)
    content = b""
    for step in range(60):
        with open_store(path) as opened, AgentStore(opened) as agents:
            # Text, which is compressed; its end lies within a piece as a rule, and once at the end of one.
            content += b" ".join(b"%d" % source.randrange(10_000) for _ in range(500))
            content = content[:16_384] if step == 8 else content
            assert agents.put(["k", step], content)
            agents.store.flush()
            if step % 10 == 9:
                for number in (0, 8, step):
                    entry = agents.get(["k", number])
                    assert entry is not None and content.startswith(entry.value)
                # Copies would take 30 times as much.
                assert agents.store.stats()["payload_bytes_stored"] < 3 * len(content)


def test_pieces_do_not_depend_on_what_was_cut_before() -> None:
    content = b" ".join(b"%d" % number for number in range(20_000))
    seen = Recent()
    for end in (1, 8_191, 8_192, 8_193, 50_000, len(content)):
        value = content[:end]
        digests = digests_of(value)
        pieces = packed(value, digests, seen, b"ann")
        assert pieces == packed(value, digests, Recent(), b"ann")
        assert digests[:-1] == digests_of(content)[: len(digests) - 1]
        assert unpacked(b"".join(pieces), end) == value
        assert unpacked(b"".join(pieces), end + 1) is None and unpacked(b"".join(pieces)[1:], end) != value
    assert len({digests_of(content, domain)[-1] for domain in (b"packed", b"small", b"large")}) == 3


def test_what_was_read_lately_is_found_as_long_as_it_is_stored(agents: AgentStore) -> None:
    content = random.Random(1).randbytes(50_000)
    for user in ("ann", "bob"):
        assert agents.put("k", content, scope=Scope(user), level="user")
    path = digest({"kvstore.agent": "value", "scope": Scope("ann").key("user"), "key": "k"})
    pieces = agents.blocks("ann").piece_paths(path)
    assert pieces is not None
    pieces[1].forget(Prompt.of_digests(pieces[0][:64], 32))
    assert agents.get("k", scope=Scope("ann"), level="user") is None
    assert agents.get("k", scope=Scope("bob"), level="user") is not None
    agents.purge(user="bob")
    assert agents.get("k", scope=Scope("bob"), level="user") is None
    # The head of one user, given to another one, finds nothing of what was read.
    head = agents.blocks("ann").raw(path)[0]
    assert agents.blocks("bob").entry_of(head) is None


def test_json_comes_back_as_it_was(agents: AgentStore) -> None:
    value = {"ä": [1, 1.0, -0.0, 2**70, 1e300, None, True, "\U0001f600\ud800"], "": {}, "nested": [[[{"x": []}]]], "z": 0, "a": 1}
    assert agents.put("json", value)
    entry = agents.get("json")
    assert entry is not None and repr(entry.value) == repr(value)
    for wrong in ({1: 2}, {"a": {1, 2}}, object(), [object()], math):
        with pytest.raises(TypeError, match="stored"):
            agents.put("json", wrong)


def test_a_value_beyond_the_largest_is_refused_clearly(agents: AgentStore) -> None:
    with pytest.raises(TooLargeError, match=str(STORED_BYTES_MAX)):
        agents.put("k", os.urandom(STORED_BYTES_MAX + 1))
    assert agents.get("k") is None
    # What counts is what it takes in the store.
    assert agents.put("k", bytes(2 * STORED_BYTES_MAX))
    entry = agents.get("k")
    assert entry is not None and entry.value == bytes(2 * STORED_BYTES_MAX)


def test_a_value_is_replaced_and_removed(agents: AgentStore) -> None:
    for value in ("one", "x" * 100_000, "two"):
        assert agents.put("k", value)
        entry = agents.get("k")
        assert entry is not None and entry.value == value
    assert agents.delete("k") and not agents.delete("k") and agents.get("k") is None


def test_a_life_ends(agents: AgentStore) -> None:
    assert agents.put("short", "value", ttl="50ms") and agents.put("long", "value", ttl=3600)
    while agents.get("short") is not None:
        time.sleep(0.01)
    assert agents.get("long") is not None
    assert agents.put("short", "again", ttl="1h")
    entry = agents.get("short")
    assert entry is not None and entry.value == "again"


def test_nothing_crosses_a_scope(agents: AgentStore) -> None:
    scopes = [
        (Scope(user, session, run), level)
        for user in ("ann", "bob")
        for session in ("s", "t")
        for run in ("r", "q")
        for level in ("run", "session", "user")
    ]
    seen = {}
    for number, (scope, level) in enumerate(scopes):
        name = (scope.user, scope.session if level != "user" else None, scope.run if level == "run" else None)
        entry = agents.get("k", scope=scope, level=level)  # type: ignore[arg-type]
        assert (entry.value if entry else None) == seen.get(name)
        if entry is None:
            seen[name] = number
            agents.put("k", number, scope=scope, level=level)  # type: ignore[arg-type]
    assert len(seen) == 8 + 4 + 2
    assert agents.get("k") is None
    with pytest.raises(ValueError, match="needs a user"):
        agents.get("k", scope=Scope(), level="user")


def test_another_secret_is_another_user(path: Path) -> None:
    with open_store(path) as store:
        AgentStore(store, secret=b"one").put("k", 1, scope=Scope("ann"), level="user")
        assert AgentStore(store, secret=b"two").get("k", scope=Scope("ann"), level="user") is None
        assert AgentStore(store, secret=b"one").get("k", scope=Scope("ann"), level="user") is not None


def test_purge_takes_all_of_a_user_and_nothing_else(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        for user in ("ann", "bob"):
            agents.put("small", 1, scope=Scope(user), level="user")
            agents.put("large", os.urandom(400_000), scope=Scope(user), level="user")
        agents.put("small", 1)
        assert agents.purge(user="ann") > 2
    with open_store(path) as store, AgentStore(store) as agents:
        assert agents.get("small", scope=Scope("ann"), level="user") is None
        assert agents.get("large", scope=Scope("ann"), level="user") is None
        assert agents.get("large", scope=Scope("bob"), level="user") is not None and agents.get("small") is not None
        assert agents.purge(user="ann") == 0


def test_a_lost_piece_is_a_miss(agents: AgentStore) -> None:
    agents.put("k", os.urandom(40_000))
    blocks, path = agents._value("k", Scope(), "global")
    pieces = blocks.piece_paths(path)
    assert pieces is not None
    blocks.forget(pieces[0])
    assert agents.get("k") is None
    assert agents.put("k", b"new") and agents.get("k") is not None


def test_many_users_do_not_keep_handles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.agent.store._USERS_MAX", 4)
    with open_store(path) as store, AgentStore(store) as agents:
        for round in range(2):
            for number in range(20):
                scope = Scope(f"user {number}")
                if round == 0:
                    agents.put("k", number, scope=scope, level="user")
                entry = agents.get("k", scope=scope, level="user")
                assert entry is not None and entry.value == number
        gc.collect()
        assert len(agents._users) == 4


TRACED = """
import sys
from kvstore.agent import AgentStore, Answers, tool_cache
from kvstore import Store
@tool_cache(scope="user", reads=["x"])
def read(x):
    return "r" * 50_000
@tool_cache(scope="user", writes=["x"])
def write(x):
    return x
with Store(sys.argv[1], capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents:
    agents.put("k", "v" * 100_000, durable=True)
    with agents.run("q", user="ann"):
        read(1), write(2), read(1)
        Answers(agents).ask({"model": "m", "temperature": 0}, lambda request: {"text": "t" * 50_000})
    with agents.run("r", user="ann") as run:
        for number in range(3):
            run.step("s", lambda number: "w" * 100_000, number)
        run.save({"a": list(range(20_000))})
        run.checkpoint("c")
"""


def test_no_result_lies_outside_the_store(tmp_path: Path) -> None:
    """All files that a program opens for writing, by the kernel's word."""
    if not Path("/usr/bin/strace").exists():
        pytest.skip("strace is not installed")
    log = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-y", "-e", "trace=open,openat,openat2,creat,memfd_create", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", TRACED, str(tmp_path / "store")], env=environment(), capture_output=True, text=True, timeout=120
    )
    if "ptrace" in done.stderr:
        pytest.skip("nothing can be traced here")
    assert done.returncode == 0, done.stderr
    opened = [line for line in log.read_text().splitlines() if "O_WRONLY" in line or "O_RDWR" in line or "memfd" in line]
    files = [found[1] for line in opened if (found := re.search(r" = \d+<(.*)>$", line))]
    assert any(file.startswith(str(tmp_path / "store")) for file in files)
    # The store's folder, and what its processes share in memory.
    for file in files:
        assert file.startswith((str(tmp_path / "store"), "/dev/shm/", "/dev/null")), file
