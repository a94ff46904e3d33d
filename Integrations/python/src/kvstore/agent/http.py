"""Transports of httpx that keep the answers of models: for the clients of OpenAI, Anthropic and others.

    import httpx2                                   # or httpx, whichever the client is made with
    client = openai.OpenAI(http_client=httpx2.Client(transport=answer_transport(agents, httpx2, scope="global")))

Requests to models (POST of JSON to …/chat/completions, …/completions, …/responses, …/messages, …/embeddings) are answered from the store;
all others go on as they are. The key is the URL, the body and every header except those that `LEFT_OUT_HEADERS` lists; credentials are
in it as a digest. Only whole answers with status 200 are kept, streams once they have ended as they should. The header
`x-kvstore-fresh: 1` of a request asks anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .answers import Question, is_sampled, usage_of
from .blocks import KIND_BYTES
from .log import DivergenceError, RecordedError
from .policies import AnswerRule
from .scope import Level, seconds

if TYPE_CHECKING:
    from .store import AgentStore

PATHS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings")
LEFT_OUT_HEADERS = (
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
    "x-stainless-*",
)
"""Headers that change from call to call, or with the client's version, and not the answer. The host is in the URL."""
LEFT_OUT_COOKIES = ("__cf", "_cf")
"""What the names of cookies begin with that a network in between sets on each client."""
_SECRET_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization")
_FRESH = "x-kvstore-fresh"
# Of the connection, not of the answer; and what would give one caller's session to another.
_DROPPED_RESPONSE_HEADERS = ("connection", "keep-alive", "transfer-encoding", "set-cookie")
# Without their spaces.
_ENDS = (b"data:[DONE]", b"event:message_stop", b"event:response.completed", b'"type":"response.completed"')
_ANSWER_BYTES_MAX = 64 << 20


def pack(status: int, headers: Sequence[tuple[str, str]], chunks: Sequence[bytes]) -> bytes:
    """An answer as it is stored."""
    head = json.dumps({"status": status, "headers": list(headers), "chunks": [len(chunk) for chunk in chunks]}).encode()
    return struct.pack("<I", len(head)) + head + b"".join(chunks)


def unpack(content: bytes) -> tuple[int, list[tuple[str, str]], list[bytes]]:
    """Status, headers and the pieces of the body, as they came."""
    (size,) = struct.unpack_from("<I", content)
    head = json.loads(content[4 : 4 + size])
    chunks, at = [], 4 + size
    for length in head["chunks"]:
        chunks.append(content[at : at + length])
        at += length
    return head["status"], [(name, value) for name, value in head["headers"]], chunks


class _Exchange:
    """One request and what comes back."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.began = time.monotonic()
        self.chunks: list[bytes] = []
        self.size = 0
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.is_event_stream = False
        self.is_encoded = False
        self.is_finished = False

    def head(self, response: Any) -> None:
        self.status = response.status_code
        self.headers = [
            (name, value) for name, value in response.headers.multi_items() if name.lower() not in _DROPPED_RESPONSE_HEADERS
        ]
        self.is_event_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        self.is_encoded = response.headers.get("content-encoding", "identity") != "identity"

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size <= _ANSWER_BYTES_MAX:
            self.chunks.append(chunk)

    def has_ended(self) -> bool:
        """Whether a stream has said that it ends: clients read no further."""
        return self.is_event_stream and not self.is_encoded and _has_end(b"".join(self.chunks))

    def finish(self) -> None:
        """The whole body has come."""
        self.is_finished = True
        unfit, tokens = "", (0, 0)
        body = b"".join(self.chunks)
        if self.size > _ANSWER_BYTES_MAX:
            self.question.store(b"", KIND_BYTES, 0, unfit="too large")
            return
        if self.status != 200:
            unfit = f"status {self.status}"
        elif self.is_encoded:
            unfit = "compressed, although that was not asked for"
        elif self.is_event_stream:
            if not _has_end(body):
                unfit = "the stream did not end as it should"
            tokens = _usage_of_events(body)
        else:
            try:
                answer = json.loads(body)
            except ValueError:
                unfit = "not JSON"
            else:
                tokens = usage_of(answer)
                if isinstance(answer, dict) and answer.get("error"):
                    unfit = "an error"
        self.question.store(
            pack(self.status, self.headers, self.chunks), KIND_BYTES, time.monotonic() - self.began, tokens=tokens, unfit=unfit
        )


def _has_end(body: bytes) -> bool:
    last = body[-65_536:].replace(b" ", b"")
    return any(end in last for end in _ENDS)


def _usage_of_events(body: bytes) -> tuple[int, int]:
    most = (0, 0)
    for line in body.split(b"\n"):
        if line.startswith(b"data:") and b'"usage"' in line:
            with contextlib.suppress(ValueError):
                document = json.loads(line[5:])
                if isinstance(document, dict):
                    for part in (document, document.get("message"), document.get("response")):
                        found = usage_of(part)
                        most = max(most[0], found[0]), max(most[1], found[1])
    return most


class _Rules:
    """What both transports know of requests."""

    def __init__(
        self,
        agents: AgentStore,
        *,
        ttl: float | str | None = None,
        scope: Level = "user",
        version: str = "",
        sampled: bool = False,
        leave_out: Sequence[str] = (),
        leave_out_headers: Sequence[str] = (),
        paths: Sequence[str] = PATHS,
    ) -> None:
        for names in (leave_out, leave_out_headers, paths):
            if isinstance(names, str):
                raise TypeError(f"a list of names, for example [{names!r}]")
        self.agents = agents
        self._rule = AnswerRule(seconds(ttl), scope, version, sampled)
        self._leave_out = tuple(leave_out)
        self._headers = tuple(name.lower() for name in (*LEFT_OUT_HEADERS, *leave_out_headers))
        self._paths = tuple(paths)

    def _is_left_out(self, name: str) -> bool:
        return name == _FRESH or any(
            name.startswith(left[:-1]) if left.endswith("*") else name == left for left in self._headers
        )

    def question(self, request: Any, body: bytes) -> Question | None:
        """What is asked; None: it is no request to a model."""
        if request.method != "POST" or not request.url.path.endswith(self._paths):
            return None
        try:
            asked = json.loads(body)
        except ValueError:
            return None
        if not isinstance(asked, dict):
            return None
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.multi_items():
            name = name.lower()
            if self._is_left_out(name):
                continue
            if name == "cookie":
                value = "; ".join(
                    part for part in value.replace(" ", "").split(";") if not part.startswith(LEFT_OUT_COOKIES)
                )
                if not value:
                    continue
            if name in _SECRET_HEADERS:
                # Another account is another tenant; what it is is not written down.
                value = "sha256 " + hashlib.sha256(self.agents.salt("") + value.encode()).hexdigest()
            headers.setdefault(name, []).append(value)
        fresh = request.headers.get(_FRESH, "0") not in ("0", "", "false")
        is_embedding = request.url.path.endswith("/embeddings")
        return Question(
            self.agents,
            {"url": str(request.url), "headers": headers, "body": asked},
            self._rule,
            model=str(asked.get("model", "")),
            # Embeddings have no temperature.
            sampled=not is_embedding and is_sampled(asked),
            provider="http",
            leave_out=[*(f"body.{name}" for name in self._leave_out), *(f"headers.{name}" for name in self._headers)],
            fresh=fresh,
        )

    @staticmethod
    def sent(request: Any) -> Any:
        """The request as it goes on: without our header, and asking for a body that can be looked into."""
        request.headers.pop(_FRESH, None)
        request.headers["accept-encoding"] = "identity"
        return request


@lru_cache
def _transports(httpx: Any) -> tuple[Any, Any]:
    """The two transports, for httpx or a package with its interface."""

    class _Played(httpx.SyncByteStream, httpx.AsyncByteStream):
        """A body that was recorded, in the pieces in which it came."""

        def __init__(self, chunks: list[bytes]) -> None:
            self._chunks = chunks

        def __iter__(self) -> Iterator[bytes]:
            yield from self._chunks

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self._chunks:
                yield chunk
                # A stream lets others run between its pieces.
                await asyncio.sleep(0)

    def _played(content: bytes, outcome: str, request: Any) -> Any:
        status, headers, chunks = unpack(content)
        return httpx.Response(
            status,
            headers=[*headers, ("x-kvstore-answer", outcome)],
            stream=_Played(chunks),
            request=request,
            extensions={"kvstore": outcome, "http_version": b"HTTP/1.1", "reason_phrase": b""},
        )

    def _again(error: Exception) -> Exception:
        """A recorded failure, as the one of httpx that it was."""
        name, _, message = str(error).partition(": ")
        kind = getattr(httpx, name, None)
        return kind(message) if isinstance(kind, type) and issubclass(kind, httpx.TransportError) else error

    def _recorded_or_found(question: Question, request: Any) -> Any:
        try:
            event = question.recorded()
        except DivergenceError:
            raise
        except RecordedError as error:
            raise _again(error) from None
        if event is not None:
            return _played(event.value, "recorded", request)
        entry = question.found()
        return None if entry is None else _played(entry.content, "hit", request)

    class _Recording(httpx.SyncByteStream):
        """Passes a body on as it comes, and keeps it once it has come whole."""

        def __init__(self, inner: Any, exchange: _Exchange, held: contextlib.ExitStack) -> None:
            self._inner, self._exchange, self._held = inner, exchange, held

        def __iter__(self) -> Iterator[bytes]:
            try:
                for chunk in self._inner:
                    self._exchange.take(chunk)
                    yield chunk
            except Exception as error:
                self._exchange.question.failed(error)
                raise
            with self._held:
                self._exchange.finish()

        def close(self) -> None:
            with self._held:
                if not self._exchange.is_finished and self._exchange.has_ended():
                    self._exchange.finish()
            self._inner.close()

    class _AsyncRecording(httpx.AsyncByteStream):
        """`_Recording` of an asynchronous body."""

        def __init__(self, inner: Any, exchange: _Exchange, held: contextlib.AsyncExitStack) -> None:
            self._inner, self._exchange, self._held = inner, exchange, held

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for chunk in self._inner:
                    self._exchange.take(chunk)
                    yield chunk
            except Exception as error:
                self._exchange.question.failed(error)
                raise
            async with self._held:
                self._exchange.finish()

        async def aclose(self) -> None:
            async with self._held:
                if not self._exchange.is_finished and self._exchange.has_ended():
                    self._exchange.finish()
            await self._inner.aclose()

    class _Transport(httpx.BaseTransport):
        """Answers from the store what it can, and passes on the rest."""

        def __init__(self, agents: AgentStore, inner: Any = None, **options: Any) -> None:
            self._inner = inner or httpx.HTTPTransport()
            self._rules = _Rules(agents, **options)

        def handle_request(self, request: Any) -> Any:
            """Answers a request."""
            question = self._rules.question(request, request.read())
            if question is None:
                return self._inner.handle_request(request)
            known = _recorded_or_found(question, request)
            if known is not None:
                return known
            agents = self._rules.agents
            with contextlib.ExitStack() as held:
                if not question.bypass:
                    held.enter_context(agents.claims.hold(question.path, agents.claim_seconds))
                    entry = question.found()
                    if entry is not None:
                        return _played(entry.content, "hit", request)
                exchange = _Exchange(question)
                try:
                    response = self._inner.handle_request(self._rules.sent(request))
                except Exception as error:
                    question.failed(error)
                    raise
                exchange.head(response)
                response.stream = _Recording(response.stream, exchange, held.pop_all())
                return response

        def close(self) -> None:
            """Closes the inner transport."""
            self._inner.close()

    class _AsyncTransport(httpx.AsyncBaseTransport):
        """`_Transport` for an `AsyncClient`."""

        def __init__(self, agents: AgentStore, inner: Any = None, **options: Any) -> None:
            self._inner = inner or httpx.AsyncHTTPTransport()
            self._rules = _Rules(agents, **options)

        async def handle_async_request(self, request: Any) -> Any:
            """Answers a request."""
            question = self._rules.question(request, await request.aread())
            if question is None:
                return await self._inner.handle_async_request(request)
            known = _recorded_or_found(question, request)
            if known is not None:
                return known
            agents = self._rules.agents
            async with contextlib.AsyncExitStack() as held:
                if not question.bypass:
                    await held.enter_async_context(agents.claims.hold_async(question.path, agents.claim_seconds))
                    entry = question.found()
                    if entry is not None:
                        return _played(entry.content, "hit", request)
                exchange = _Exchange(question)
                try:
                    response = await self._inner.handle_async_request(self._rules.sent(request))
                except Exception as error:
                    question.failed(error)
                    raise
                exchange.head(response)
                response.stream = _AsyncRecording(response.stream, exchange, held.pop_all())
                return response

        async def aclose(self) -> None:
            """Closes the inner transport."""
            await self._inner.aclose()

    return _Transport, _AsyncTransport


def answer_transport(agents: AgentStore, httpx: Any, inner: Any = None, **options: Any) -> Any:
    """A transport for `httpx.Client` that answers from the store what it can, and passes on the rest.

    httpx: the package that the client is of. inner: the transport that sends; a plain one by default. Options: ttl, scope ("user"),
    version; sampled: keep answers of requests with a temperature above 0, or none, too; leave_out: fields of the body that do not change
    the answer ("metadata"), and leave_out_headers likewise, both noted in each key; paths instead of `PATHS`.
    """
    return _transports(httpx)[0](agents, inner, **options)


def async_answer_transport(agents: AgentStore, httpx: Any, inner: Any = None, **options: Any) -> Any:
    """`answer_transport` for `httpx.AsyncClient`."""
    return _transports(httpx)[1](agents, inner, **options)


__all__ = ["LEFT_OUT_COOKIES", "LEFT_OUT_HEADERS", "PATHS", "answer_transport", "async_answer_transport"]
