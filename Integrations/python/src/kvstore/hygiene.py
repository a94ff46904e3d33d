"""Keeps the prefix of prompts whole: says what breaks it, and writes requests in a form that does not.

    from kvstore import hygiene

    body = {"model": "m", **hygiene.canonical(messages, tools)}
    for finding in hygiene.check(previous, body):
        print(finding.kind, finding.path, finding.tokens_lost, finding.remedy)

What is found, and what it is called, is what `kvstore lint` finds: the command does the work. In tests, the fixture `prefix` of the
pytest plugin `kvstore.hygiene_pytest` fails a test whose prompts break the prefix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import operator
import os
import shutil
import subprocess
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .command import packaged

__all__ = ["CommandNotFoundError", "Finding", "canonical", "check", "check_log", "mend"]

# A message or a whole request, as it goes over the wire.
Json = dict[str, Any]
# A request as the text of its prompt.
Template = Callable[[Mapping[str, Any]], str]


class CommandNotFoundError(RuntimeError):
    """There is no `kvstore` command."""


@dataclass(frozen=True)
class Finding:
    """Something that a request has in another way than the one before it, and that costs what stands behind it."""

    # Which request of those given, from 1 on.
    line: int
    # `kvstore lint` lists them: volatileValue, keyOrder, toolsReordered, edited …
    kind: str
    # The field of the request, and the code points in it.
    path: str
    start: int
    end: int
    # Tokens that count as new because of it: estimated, or counted by the tokenizer that was given.
    tokens_lost: int
    # What to do, in a sentence.
    remedy: str
    # What kind of value, of a volatile one: time, uuid, counter …
    value: str | None = None
    # The few characters that show the fault.
    now: str | None = None
    was: str | None = None
    # Whether `tokens_lost` is an estimate.
    estimated: bool = True

    def __str__(self) -> str:
        shown = f": {self.now or 'nothing'} was {self.was or 'nothing'}" if self.now or self.was else ""
        return (
            f"request {self.line}, {self.path or 'the conversation'}, characters {self.start} to {self.end}: "
            f"{self.kind}, {self.tokens_lost} tokens{shown}. {self.remedy}"
        )


def check(
    previous: Mapping[str, Any], next: Mapping[str, Any], *, tokenizer: Any = None, template: Template | None = None
) -> list[Finding]:
    """What `next` has changed in what `previous` had sent; an empty list where the prefix is whole."""
    return check_log([previous, next], tokenizer=tokenizer, template=template)


def check_log(requests: Iterable[Mapping[str, Any]], *, tokenizer: Any = None, template: Template | None = None) -> list[Finding]:
    """The findings in requests that were sent one after the other, of one conversation or of several.

    `tokenizer` counts the tokens, which are estimated without: one of the packages `tokenizers` or `transformers`, or a function of a
    text that answers ids. `template` makes a prompt of a request; without it, that of a `transformers` tokenizer is used, and else a
    plain one that writes tools, roles and contents one behind the other.
    """
    options = ["-", "--json", "--ttl", "0s"]
    if tokenizer is None:
        document = json.loads(_run(options, requests))
    else:
        with _counting(tokenizer, template) as address:
            document = json.loads(_run([*options, "--server", address], requests))
    for skipped in document["skipped"]:
        raise ValueError(f"these are not all requests: {skipped['example']}")
    return [
        Finding(
            line=found["line"],
            kind=found["kind"],
            path=found["path"],
            start=found["start"],
            end=found["end"],
            tokens_lost=found["tokens_lost"],
            remedy=found["remedy"],
            value=found.get("value"),
            now=found.get("now"),
            was=found.get("was"),
            estimated=found["tokens_estimated"],
        )
        for found in document["findings"]
    ]


def mend(previous: Mapping[str, Any], next: Mapping[str, Any]) -> Json:
    """`next` as it should be after `previous`: what was sent stays, what is new comes behind it.

    Values that change each time, and corrections, stand at the end of the newest user message. Where nothing breaks the prefix, `next`
    is returned as it is.
    """
    if not check(previous, next):
        return dict(next)
    mended: Json = json.loads(_run(["-", "--show-fixed", "2", "--ttl", "0s"], [previous, next]))
    return mended


def canonical(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    previous: Mapping[str, Any] | None = None,
    placeholders: Mapping[str, str] | None = None,
) -> Json:
    """`messages` and `tools` in the one form in which the same content is always the same bytes.

    Tools come by name, with their keys sorted; arguments of calls are serialised again with sorted keys and no blanks; text is NFC.
    `placeholders` gives, for ids of tool calls, what is sent instead of their results: from the start, or it costs what lies behind.
    With `previous`, the request that was sent before, values that change each time move to the end of the newest user message.
    """
    body: Json = {"messages": [_message(message, placeholders or {}) for message in messages]}
    if tools is not None:
        body["tools"] = sorted((_sorted(tool) for tool in tools), key=_tool_name)
    if previous is not None:
        mended = mend({key: previous[key] for key in ("messages", "tools") if key in previous}, body)
        body = {key: mended[key] for key in ("messages", "tools") if key in mended}
    return body


# ---------------------------------------------------------------- one form


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return _text(value)


def _text(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""


def _message(message: Mapping[str, Any], placeholders: Mapping[str, str]) -> Json:
    result = _normal(dict(message))
    if result.get("tool_call_id") in placeholders:
        result["content"] = placeholders[result["tool_call_id"]]
    for call in result.get("tool_calls") or []:
        function = call.get("function", {})
        if isinstance(function.get("arguments"), str):
            function["arguments"] = _arguments(function["arguments"])
    if isinstance(result.get("content"), list):
        for block in result["content"]:
            if isinstance(block, dict) and block.get("type") == "tool_use":
                block["input"] = _sorted(block.get("input"))
            if isinstance(block, dict) and block.get("tool_use_id") in placeholders:
                block["content"] = placeholders[block["tool_use_id"]]
    return result


def _normal(value: Any) -> Any:
    """The value with its text in NFC; the order of keys stays, since the server picks the fields of a message by name."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    return _text(value)


def _arguments(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        # What a model wrote need not be JSON.
        return text
    return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":"))


# ---------------------------------------------------------------- tokens


def _plain(request: Mapping[str, Any]) -> str:
    """A prompt of any request: what the command compares, without the marks of any model."""
    parts = [json.dumps(tool, ensure_ascii=False) for tool in request.get("tools") or []]
    for message in request.get("messages") or []:
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
        rest = {key: message[key] for key in sorted(message) if key not in ("role", "content")}
        parts.append(f"<{message.get('role', '')}>\n{json.dumps(rest, ensure_ascii=False) if rest else ''}{text}")
    return "\n".join(parts)


def _ids(tokenizer: Any, text: str) -> list[int]:
    encode = getattr(tokenizer, "encode", tokenizer)
    found = encode(text)
    return [operator.index(token) for token in getattr(found, "ids", found)]


def _prompt(tokenizer: Any, template: Template | None, request: Mapping[str, Any]) -> str:
    if template is not None:
        return template(request)
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(request.get("messages"), tools=request.get("tools"), tokenize=False, add_generation_prompt=True)
        return str(text)
    return _plain(request)


@contextlib.contextmanager
def _counting(tokenizer: Any, template: Template | None) -> Iterator[str]:
    """Answers the two questions that the command asks a llama-server: so it counts with any tokenizer, and there is one way to count."""
    problems: list[BaseException] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/apply-template":
                    answer: Json = {"prompt": _prompt(tokenizer, template, body)}
                else:
                    answer = {"tokens": _ids(tokenizer, body["content"])}
            except Exception as problem:  # It is the caller's, and is raised where the caller is.
                problems.append(problem)
                self.send_error(500)
                return
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
        if problems:
            raise problems[0]
    except RuntimeError as failure:
        if problems:
            raise problems[0] from failure
        raise
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ---------------------------------------------------------------- the command


def command() -> str:
    """The `kvstore` command: $KVSTORE_COMMAND, the one in this package (which goes by its name), the one on the path."""
    found = os.environ.get("KVSTORE_COMMAND") or packaged("kvstore") or shutil.which("kvstore")
    if not found:
        raise CommandNotFoundError(
            "there is no kvstore command: install it (Scripts/install, or the package), or set KVSTORE_COMMAND to where it is"
        )
    return str(found)


def _object(value: Any) -> Any:
    """What a client sends of an object of its own: the messages of openai and anthropic, dataclasses, tuples of them."""
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump(mode="json", exclude_unset=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return dict(value) if isinstance(value, Mapping) else list(value)
    raise TypeError(f"a request is JSON, and holds no {type(value).__name__}")


def _run(options: Sequence[str], requests: Iterable[Mapping[str, Any]]) -> str:
    lines = "".join(json.dumps(request, default=_object, allow_nan=False) + "\n" for request in requests)
    done = subprocess.run(
        ["kvstore", "lint", *options],
        executable=command(),
        input=lines,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"kvstore lint: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout
