"""Findings through the command, the one form, and the pytest plugin."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from kvstore import hygiene

pytest_plugins = ["pytester"]

BIN = Path(os.environ.get("KVSTORE_PREFIX", "")) / "bin" / "kvstore"
COMMAND = os.environ.get("KVSTORE_COMMAND") or (str(BIN) if BIN.exists() else shutil.which("kvstore"))
pytestmark = pytest.mark.skipif(COMMAND is None, reason="the kvstore command is not installed")


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSTORE_COMMAND", str(COMMAND))


def body(time: str, *more: str) -> dict:
    messages = [
        {"role": "system", "content": f"It is 2026-11-29 {time}. Answer in one sentence, and name the file that you looked at."},
        {"role": "user", "content": "Where is the parser, and who calls it?"},
    ]
    return {"model": "m", "messages": messages + [{"role": "user", "content": text} for text in more]}


def test_an_append_breaks_nothing() -> None:
    assert hygiene.check(body("21:48"), body("21:48", "And the lexer?")) == []


def test_a_time_is_found_and_mended() -> None:
    previous, following = body("21:48"), body("21:49", "And the lexer?")
    (finding,) = hygiene.check(previous, following)
    assert (finding.kind, finding.value, finding.path, finding.line) == ("volatileValue", "time", "messages[0].content", 2)
    text = following["messages"][0]["content"]
    assert text[finding.start : finding.end] == "2026-11-29 21:49"
    mended = hygiene.mend(previous, following)
    assert mended["messages"][:2] == previous["messages"]
    assert mended["messages"][2]["content"] == "And the lexer?\n\n2026-11-29 21:49"
    assert hygiene.check(previous, mended) == []


def test_a_tokenizer_counts() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    previous, following = body("21:48"), body("21:49", "And the lexer?")
    words = {word: number for number, word in enumerate(["?", *sorted(set(json.dumps([previous, following]).split()))])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    (finding,) = hygiene.check(previous, following, tokenizer=tokenizer)
    # Eleven words behind the time, the mark of the next message and its eight words.
    assert (finding.kind, finding.tokens_lost, finding.estimated) == ("volatileValue", 11 + 1 + 8, False)
    assert hygiene.check(previous, following)[0].estimated


def test_any_function_counts_and_its_errors_are_the_callers() -> None:
    previous, following = body("21:48"), body("21:49", "And the lexer?")

    def prompt(request: dict) -> str:
        return "|".join(message["content"] for message in request["messages"])

    (finding,) = hygiene.check(previous, following, tokenizer=lambda text: [ord(letter) for letter in text], template=prompt)
    # Each letter is a token: what lies behind the minute, but for letters that agree by chance.
    behind = len(prompt(previous)) - prompt(previous).index("21:48") - 5
    assert abs(finding.tokens_lost - behind) <= 4

    def broken(text: str) -> list[int]:
        raise KeyError("no such word")

    with pytest.raises(KeyError, match="no such word"):
        hygiene.check(previous, following, tokenizer=broken)


class Answered:
    """As the messages are that openai and anthropic answer with."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def model_dump(self, **_: object) -> dict:
        return dict(self.fields)


@dataclasses.dataclass
class Message:
    role: str
    content: str


def test_objects_of_clients_are_requests_too() -> None:
    previous, following = body("21:48"), body("21:49")
    following["messages"] += [Answered(role="assistant", content="In src."), Message("user", "And the lexer?")]
    (finding,) = hygiene.check(previous, following)
    assert (finding.kind, finding.path) == ("volatileValue", "messages[0].content")
    assert hygiene.mend(previous, following)["messages"][2] == {"role": "assistant", "content": "In src."}


def test_what_is_no_request_is_an_error() -> None:
    good = body("21:48")
    with pytest.raises(ValueError, match="no request"):
        hygiene.check(good, {"model": "m", "temperature": 1})
    with pytest.raises(ValueError, match="JSON"):
        hygiene.check(good, {**good, "temperature": float("nan")})
    with pytest.raises(TypeError, match="bytes"):
        hygiene.check(good, {**good, "image": b"1"})
    # Half of a character, as a text has that was cut in the middle.
    assert hygiene.check(good, body("21:48", "a \ud83d b")) == []


def test_a_template_that_fails_for_one_request_is_the_callers() -> None:
    def prompt(request: dict) -> str:
        if len(request["messages"]) > 2:
            raise LookupError("no template for it")
        return "|".join(message["content"] for message in request["messages"])

    with pytest.raises(LookupError, match="no template"):
        hygiene.check(body("21:48"), body("21:49", "And the lexer?"), tokenizer=lambda text: [len(word) for word in text.split()], template=prompt)


def test_the_one_form() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {"b": 1, "a": 2}}} for name in ("write", "read")]
    call = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"b": 1,  "a": "cafe\\u0301"}'}}
    messages = [
        {"role": "user", "content": "cafe\u0301"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a long table"},
    ]
    form = hygiene.canonical(messages, tools, placeholders={"c1": "[ref#1: 47 rows]"})
    assert [tool["function"]["name"] for tool in form["tools"]] == ["read", "write"]
    assert list(form["tools"][0]["function"]["parameters"]) == ["a", "b"]
    assert form["messages"][0]["content"] == "caf\u00e9"
    assert form["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a":"caf\u00e9","b":1}'
    assert form["messages"][2]["content"] == "[ref#1: 47 rows]"
    # What was given is as it was.
    assert messages[0]["content"] == "cafe\u0301" and call["function"]["arguments"].startswith('{"b": 1')
    # In whatever order things come, the form is the same.
    assert json.dumps(form) == json.dumps(hygiene.canonical(messages, tools[::-1], placeholders={"c1": "[ref#1: 47 rows]"}))


def test_volatile_values_move_to_the_end() -> None:
    following = body("21:49", "And the lexer?")
    form = hygiene.canonical(following["messages"], previous=body("21:48"))
    assert form["messages"][-1]["content"].endswith("2026-11-29 21:49")


def test_the_plugin_fails_a_test_that_breaks_the_prefix(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        pytest_plugins = ["kvstore.hygiene_pytest"]

        def request(time, *more):
            system = {"role": "system", "content": f"It is {time}. Answer in one sentence, with the name of a file."}
            return {"messages": [system, {"role": "user", "content": "Where is the parser?"}, *more]}

        NEXT = {"role": "user", "content": "And the lexer?"}

        def test_whole(prefix):
            prefix.sent(request("21:48"))
            assert prefix.sent(request("21:48", NEXT))["messages"][-1] is NEXT

        def test_broken(prefix):
            prefix.sent(request("21:48"))
            prefix.sent(request("21:49", NEXT))

        def test_allowed(prefix):
            prefix.allow("volatileValue")
            prefix.sent(request("21:48"))
            prefix.sent(request("21:49", NEXT))
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*break their prefix*", "*messages?0?.content*volatileValue*"])


def test_without_the_command_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVSTORE_COMMAND")
    monkeypatch.setenv("PATH", "/nonexistent")
    # A wheel carries the command beside the module.
    monkeypatch.setattr(hygiene, "packaged", lambda name: None)
    with pytest.raises(hygiene.CommandNotFoundError, match="KVSTORE_COMMAND"):
        hygiene.check(body("21:48"), body("21:49"))
