"""The transports of httpx, and the clients of OpenAI and Anthropic on top of them, with a server of the test's own."""

from __future__ import annotations

import asyncio
import http.server
import importlib
import importlib.util
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_agent_answers import REQUEST, same, variants
from test_agent_runtime import llama_server  # noqa: F401

from kvstore.agent import AgentStore, last_answer

from kvstore.agent.http import answer_transport, async_answer_transport

PACKAGES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
if not PACKAGES:
    pytest.skip("httpx is not installed", allow_module_level=True)


@pytest.fixture(params=PACKAGES)
def httpx(request: pytest.FixtureRequest) -> Any:
    """The package, under both its names."""
    return importlib.import_module(request.param)


class Server:
    """Answers as model servers do, each request with another number."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.status = 200
        self.cut = False
        self.delay = 0.0
        numbers = itertools.count(1)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
                number = next(numbers)
                if server.delay:
                    threading.Event().wait(server.delay)
                if server.status != 200:
                    self.answer(json.dumps({"error": {"message": "no", "type": "server_error"}}).encode(), server.status)
                elif body.get("stream"):
                    self.stream(anthropic_events(number) if self.path.endswith("/messages") else openai_events(number))
                elif self.path.endswith("/messages"):
                    self.answer(json.dumps(anthropic_message(number)).encode())
                elif self.path.endswith("/embeddings"):
                    vector = {"object": "embedding", "index": 0, "embedding": [number, 0.5]}
                    document = {"object": "list", "data": [vector], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
                    self.answer(json.dumps(document).encode())
                else:
                    self.answer(json.dumps({**openai_completion(number), "echo": body}).encode())

            def answer(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("set-cookie", "__cf_bm=1; Path=/")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self, events: list[bytes]) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for event in events[:-1] if server.cut else events:
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def openai_completion(number: int) -> dict[str, Any]:
    return {
        "id": f"c{number}", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer {number}"}}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34},
    }  # fmt: skip


def openai_events(number: int) -> list[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        document = {"id": f"c{number}", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(document)}\n\n".encode()

    texts = ["answer", " ", str(number)]
    return [chunk({"content": text}) for text in texts] + [chunk({}, "stop"), b"data: [DONE]\n\n"]


def anthropic_message(number: int) -> dict[str, Any]:
    return {
        "id": f"m{number}", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
        "content": [{"type": "text", "text": f"answer {number}"}], "usage": {"input_tokens": 30, "output_tokens": 4},
    }  # fmt: skip


def anthropic_events(number: int) -> list[bytes]:
    message = {**anthropic_message(number), "content": [], "stop_reason": None}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"answer {number}"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    opened.close()


def client(agents: AgentStore, httpx: Any, **options: Any) -> Any:
    return httpx.Client(transport=answer_transport(agents, httpx, **{"scope": "global", **options}), timeout=30)


def of(sdk: Any) -> Any:
    """The package that a client of models is made with."""
    module = importlib.import_module(f"{sdk.__name__}._base_client")
    return getattr(module, "httpx2", None) or module.httpx


def test_answers_come_as_they_came(agents: AgentStore, server: Server, httpx: Any) -> None:
    with client(agents, httpx) as http_client:
        for stream in (False, True):
            request = {**REQUEST, "stream": stream}
            answers = []
            for _ in range(3):
                with http_client.stream("POST", server.address + "/chat/completions", json=request) as response:
                    answers.append((response.status_code, response.headers.get("content-type"), list(response.iter_raw())))
                    assert ("set-cookie" in response.headers) == (len(answers) == 1 and not stream)
            assert answers[1] == answers[2] and answers[0][:2] == answers[1][:2]
            assert b"".join(answers[0][2]) == b"".join(answers[1][2])
            assert response.headers["x-kvstore-answer"] == "hit" and response.extensions["kvstore"] == "hit"
        assert len(server.requests) == 2
        assert server.requests[0][2]["accept-encoding"] == "identity"


def test_every_field_of_a_body_is_in_the_key(agents: AgentStore, server: Server, httpx: Any) -> None:
    with client(agents, httpx, sampled=True) as http_client:
        for variant in variants()[::31]:
            if not variant.get("stream"):
                response = http_client.post(server.address + "/chat/completions", json=variant)
                assert same(response.json()["echo"], json.loads(json.dumps(variant)))


def test_url_headers_and_accounts_are_in_the_key(agents: AgentStore, server: Server, httpx: Any) -> None:
    with client(agents, httpx) as http_client:

        def ask(path: str = "/chat/completions", **headers: str) -> str:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return str(http_client.post(server.address + path, json=REQUEST, headers=names).json()["id"])

        answers = [
            ask(),
            ask("/completions"),
            ask("/chat/completions?api-version=2"),
            ask(authorization="Bearer one"),
            ask(authorization="Bearer two"),
            ask(x_api_key="one"),
            ask(openai_organization="o"),
            ask(openai_beta="b"),
            ask(anthropic_version="2023-06-01"),
            ask(x_unknown="1"),
            ask(cookie="session=1"),
            ask(cookie="session=2"),
        ]
        assert len(set(answers)) == len(answers)
        for same_call in ({"user_agent": "x"}, {"x_stainless_retry_count": "3"}, {"traceparent": "00-1"}, {"idempotency_key": "1"}):
            assert ask(**same_call) == answers[0]
        assert ask(x_kvstore_fresh="1") not in answers
        assert "x-kvstore-fresh" not in server.requests[-1][2]
        renewed = ask()
        assert renewed not in answers
    with client(agents, httpx, leave_out_headers=["X-Unknown"]) as http_client:
        assert ask(x_unknown="1") == ask(x_unknown="2")


def test_credentials_are_not_stored(agents: AgentStore, server: Server, httpx: Any) -> None:
    secret = "sk-very-secret-indeed"
    with agents.run("r") as run, client(agents, httpx) as http_client:
        http_client.post(server.address + "/chat/completions", json=REQUEST, headers={"authorization": f"Bearer {secret}"})
        assert secret not in repr(run.events(values=True)) and "sha256 " in repr(run.events())


def test_what_is_not_whole_is_not_kept(agents: AgentStore, server: Server, httpx: Any) -> None:
    url = server.address + "/chat/completions"
    with client(agents, httpx) as http_client:
        server.status = 500
        assert http_client.post(url, json=REQUEST).status_code == 500
        server.status, server.cut = 200, True
        http_client.post(url, json={**REQUEST, "stream": True})
        server.cut = False
        with http_client.stream("POST", url, json={**REQUEST, "stream": True}) as response:
            next(response.iter_raw())
        for stream in (False, True):
            assert http_client.post(url, json={**REQUEST, "stream": stream}).headers.get("x-kvstore-answer") is None
            assert http_client.post(url, json={**REQUEST, "stream": stream}).headers["x-kvstore-answer"] == "hit"
        assert len(server.requests) == 5
        hot = {**REQUEST, "temperature": 0.5}
        assert http_client.post(url, json=hot).json()["id"] != http_client.post(url, json=hot).json()["id"]
        assert last_answer().outcome == "bypassed"
        assert http_client.post(server.address + "/files", json={}).status_code == 200
        assert len(server.requests) == 8


def test_equal_requests_at_once_reach_the_server_once(agents: AgentStore, server: Server, httpx: Any) -> None:
    server.delay = 0.05
    url = server.address + "/chat/completions"
    for stream in (False, True):
        with client(agents, httpx) as http_client, ThreadPoolExecutor(8) as pool:
            bodies = set(pool.map(lambda _: http_client.post(url, json={**REQUEST, "stream": stream}).content, range(8)))
            assert len(bodies) == 1

    async def all_of_them() -> set[bytes]:
        async with httpx.AsyncClient(transport=async_answer_transport(agents, httpx, scope="global"), timeout=30) as http_client:
            requests = (http_client.post(url, json={**REQUEST, "n": 5, "stream": True}) for _ in range(8))
            return {response.content for response in await asyncio.gather(*requests)}

    assert len(asyncio.run(all_of_them())) == 1
    assert len(server.requests) == 3


def test_a_run_is_replayed_without_its_server(agents: AgentStore, server: Server, httpx: Any) -> None:
    url = server.address + "/chat/completions"

    def program() -> list[Any]:
        found: list[Any] = []
        with client(agents, httpx, scope="run", sampled=True) as http_client:
            for request in (REQUEST, {**REQUEST, "stream": True}, REQUEST, {**REQUEST, "temperature": 1}):
                found.append(http_client.post(url, json=request).content)
            try:
                http_client.post("http://127.0.0.1:9/v1/messages", json=REQUEST)
            except httpx.ConnectError as error:
                found.append(str(error))
        return found

    with agents.run("r", user="ann"):
        recorded = program()
    server.close()
    for _ in range(2):
        with agents.replay("r", user="ann"):
            assert program() == recorded


def test_the_client_of_openai(agents: AgentStore, server: Server) -> None:
    openai = pytest.importorskip("openai")
    httpx = of(openai)
    messages = [{"role": "user", "content": "hello"}]

    def ask(http_client: Any, **options: Any) -> Any:
        api = openai.OpenAI(base_url=server.address, api_key="k", http_client=http_client, max_retries=0)
        return api.chat.completions.create(model="m", messages=messages, temperature=0, **options)

    with client(agents, httpx) as http_client:
        first = ask(http_client)
        assert ask(http_client) == first and first.choices[0].message.content == "answer 1"
        assert ask(http_client, extra_headers={"x-kvstore-fresh": "1"}) != first
        streams = [[chunk.choices[0].delta.content for chunk in ask(http_client, stream=True)] for _ in range(2)]
        assert streams[0] == streams[1] and len(streams[0]) == 4
        api = openai.OpenAI(base_url=server.address, api_key="k", http_client=http_client)
        vectors = [api.embeddings.create(model="m", input="text", encoding_format="float").data[0].embedding for _ in range(2)]
        assert vectors[0] == vectors[1]
    assert len(server.requests) == 4

    async def ask_async() -> list[str]:
        async with httpx.AsyncClient(transport=async_answer_transport(agents, httpx, scope="global")) as http_client:
            api = openai.AsyncOpenAI(base_url=server.address, api_key="k", http_client=http_client)
            stream = await api.chat.completions.create(model="m2", messages=messages, temperature=0, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(ask_async()) == asyncio.run(ask_async())
    assert len(server.requests) == 5


def test_the_client_of_anthropic(agents: AgentStore, server: Server) -> None:
    anthropic = pytest.importorskip("anthropic")
    httpx = of(anthropic)
    with client(agents, httpx, sampled=True) as http_client:
        api = anthropic.Anthropic(base_url=server.address.removesuffix("/v1"), api_key="k", http_client=http_client, max_retries=0)
        request = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
        first = api.messages.create(**request)
        assert api.messages.create(**request).content == first.content
        texts = []
        for _ in range(2):
            with api.messages.stream(**request) as stream:
                texts.append("".join(stream.text_stream))
        assert texts[0] == texts[1] and texts[0].startswith("answer")
    assert len(server.requests) == 2


@pytest.mark.long
def test_the_clients_with_a_real_server(agents: AgentStore, llama_server: str) -> None:
    """llama-server with a small model: what it answered is answered again, to the byte, and a run needs it no more."""
    openai = pytest.importorskip("openai")
    anthropic = pytest.importorskip("anthropic")
    messages = [{"role": "user", "content": "Say a word."}]

    def program() -> list[Any]:
        found: list[Any] = []
        with client(agents, of(openai), scope="run", sampled=True) as http_client:
            api = openai.OpenAI(base_url=llama_server + "/v1", api_key="k", http_client=http_client, max_retries=0)
            for stream in (False, True):
                answer = api.chat.completions.create(model="m", messages=messages, temperature=1, max_tokens=12, stream=stream)
                found.append([chunk.to_json() for chunk in answer] if stream else answer.to_json())
        with client(agents, of(anthropic), scope="run", sampled=True) as http_client:
            api = anthropic.Anthropic(base_url=llama_server, api_key="k", http_client=http_client, max_retries=0)
            found.append(api.messages.create(model="m", max_tokens=12, messages=messages).to_json())
            with api.messages.stream(model="m", max_tokens=12, messages=messages) as events:
                found.append([event.to_json() for event in events])
        return found

    with agents.run("r", user="ann"):
        first = program()
    with agents.run("r", user="ann"):
        assert program() == first
    with agents.replay("r", user="ann"):
        assert program() == first
    counts = agents.metrics.counts()
    assert counts["answer", "m", "stored"] == 4 and counts["answer", "m", "recorded"] == 8
