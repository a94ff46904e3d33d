"""What an agent's way of making prompts costs on a real server, by the server's own counts.

    llama-server -m model.gguf --jinja --chat-template-file plain.jinja -c 10240 -np 5 -no-kvu --swa-full --cache-ram 0 --port 8080 &
    python agent_strategies.py run http://127.0.0.1:8080 RESULTS [--sessions 50] [--turns 10]
    python agent_strategies.py report RESULTS [--prices FILE --model NAME]
    python agent_strategies.py schemas http://127.0.0.1:8080      # a server with any chat template

The same conversations in five ways, each in a slot of its own so that none finds another's prefix:

    naive           the time at the front, tools in any order, the whole history
    stable front    the same bytes at the front, the time at the end of the newest message
    window          the same with `Runtime`'s window: long results become placeholders, the middle a line
    whole runtime   and a front that is warm before the first turn, a goal at the tail, and the window made smaller in a pause
    tools once      a stable front whose tools are left out after the first turn

A turn is a note of four things and a question about one of them, three times in ten from an earlier note. The answer is right if it
names the word of the note. Where a note is not in the prompt any more, the program recalls it. A run that is interrupted goes on:
each line of RESULTS is one conversation.

`schemas` asks nothing of a model: it has the server render a conversation with ten tools by its chat template, with the tools in each
request and in the first one only, and counts the tokens that a prefix cache would find again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kvstore
from kvstore.agent import AgentStore, Prices, Runtime
from kvstore.agent.runtime import cached_of, warm_front

THINGS = (
    "gate roof pump lift door boiler fence window lamp stair wall floor pipe valve motor clock bench table chair shelf garden pool "
    "kitchen cellar garage bridge tower tunnel canal harbour mill barn stable chapel office library archive studio lobby terrace"
).split()
STATES = "open closed broken clean locked wet hot cold".split()
STRATEGIES = ("naive", "stable front", "window", "whole runtime", "tools once")
SYSTEM = (
    "Notes of a caretaker, and what was asked of them.\nThe attic is hot. The chimney is wet. The hall is dry.\nThe chimney is wet."
)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"note": {"type": "integer"}}}}}
    for name in ("read_note", "close_note")
]
SETTINGS = {"temperature": 0, "max_tokens": 4, "stop": ["."], "cache_prompt": True}
WINDOW_TOKENS = 600


class Server:
    """Posts chat completions to a slot, as streams, and notes what the server says of each."""

    def __init__(self, url: str, slot: int) -> None:
        self.url, self.slot = url, slot
        self.calls: list[dict[str, Any]] = []

    def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = {**body, "id_slot": self.slot, "stream": True, "stream_options": {"include_usage": True}}
        request = urllib.request.Request(
            self.url + "/v1/chat/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
        )
        began = time.perf_counter()
        first: float | None = None
        text, answer = "", {}
        with urllib.request.urlopen(request, timeout=1800) as response:
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                part = json.loads(line[6:])
                for choice in part.get("choices", ()):
                    more = choice["delta"].get("content") or ""
                    if first is None and (more or choice.get("finish_reason")):
                        first = time.perf_counter() - began
                    text += more
                answer.update({name: part[name] for name in ("usage", "timings") if part.get(name)})
        tokens, cached = cached_of(answer)
        self.calls.append({
            "tokens": tokens, "cached": cached, "written": answer["usage"]["completion_tokens"], "first": round(first or 0, 4),
        })  # fmt: skip
        return {**answer, "choices": [{"message": {"role": "assistant", "content": text}}]}


class Talk:
    """What is said in one conversation: the same for each strategy."""

    def __init__(self, number: int, turns: int) -> None:
        source = random.Random(number)
        things = source.sample(THINGS, 4 * turns)
        self.notes = [{thing: source.choice(STATES) for thing in things[4 * turn : 4 * turn + 4]} for turn in range(turns)]
        self.asked = []
        for turn in range(turns):
            of = turn if source.random() < 0.7 else source.randint(0, turn)
            self.asked.append((of, source.choice(list(self.notes[of]))))

    def note(self, turn: int) -> str:
        return " ".join(f"The {thing} is {state}." for thing, state in self.notes[turn].items())

    def question(self, turn: int) -> str:
        return f"The {self.asked[turn][1]} is"

    def is_right(self, turn: int, answer: str) -> bool:
        of, thing = self.asked[turn]
        words = answer.split()
        return bool(words) and words[0].strip(".,").lower() == self.notes[of][thing]


def conversation(strategy: str, server: Server, agents: AgentStore, number: int, turns: int) -> list[tuple[dict[str, Any], bool]]:
    """Holds it; returns each turn's call and whether its answer was right."""
    talk = Talk(number, turns)
    found = []
    if strategy in ("naive", "stable front", "tools once"):
        mixed = random.Random(f"tools {number}")
        messages: list[dict[str, Any]] = []
        for turn in range(turns):
            now = f"Now: {time.strftime('%T')}"
            front, tools, question = SYSTEM, TOOLS, f"{talk.question(turn)}\n\n{now}"
            if strategy == "naive":
                # What is often seen: the time in the system text, tools in the order of a set.
                front, tools, question = f"{now}\n{SYSTEM}", mixed.sample(TOOLS, len(TOOLS)), talk.question(turn)
            messages += [{"role": "tool", "tool_call_id": "1", "content": talk.note(turn)}, {"role": "user", "content": question}]
            body: dict[str, Any] = {"model": "m", "messages": [{"role": "system", "content": front}, *messages], **SETTINGS}
            if strategy != "tools once" or turn == 0:
                body["tools"] = tools
            answer = server(body)["choices"][0]["message"]
            messages.append(answer)
            found.append((server.calls[-1], talk.is_right(turn, answer["content"])))
        return found
    whole = strategy == "whole runtime"
    with agents.run(f"{strategy} {number} {time.time_ns()}") as run:
        runtime = Runtime(
            run, server, model="m", system=SYSTEM, tools=TOOLS, settings=SETTINGS, window_tokens=WINDOW_TOKENS, keep_first=1,
            keep_last=4, long_tokens=30, goal="as noted" if whole else None, summarise=lambda middle: f"{len(middle)} notes before.",
        )  # fmt: skip
        if whole:
            warm_front(agents, runtime.front(), server, **SETTINGS)
        refs = []
        for turn in range(turns):
            runtime.result("1", talk.note(turn))
            refs.append(run.position)
            of = talk.asked[turn][0]
            if any(refs[of] in done.replaced for done in runtime.compactions):
                runtime.recall(refs[of])
            runtime.say(talk.question(turn), volatile={"Now": time.strftime("%T")})
            answer = runtime.step()
            found.append((server.calls[-1], talk.is_right(turn, answer["content"])))
            if whole and runtime.compact(ahead=True):
                # Somebody reads the answer now.
                runtime.warm()
    return found


def measure(url: str, results: Path, sessions: int, turns: int, few: int) -> None:
    """Holds the conversations that are not in the results yet."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["strategy"], line["session"]) for line in lines}
    with tempfile.TemporaryDirectory() as folder, kvstore.Store(Path(folder) / "store", capacity="1GiB") as store:
        agents = AgentStore(store)
        for number in range(sessions):
            # In another order each time: what else the machine does falls on all of them.
            for strategy in random.Random(f"order {number}").sample(STRATEGIES, len(STRATEGIES)):
                if (strategy, number) in done or (strategy == "tools once" and number >= few):
                    continue
                server = Server(url, STRATEGIES.index(strategy))
                load = os.getloadavg()[0]
                found = conversation(strategy, server, agents, number, turns)
                steps = [id(call) for call, _ in found]
                line = {
                    "strategy": strategy, "session": number, "load": round(load, 1),
                    "turns": [{**call, "right": right} for call, right in found],
                    "warm": [call for call in server.calls if id(call) not in steps],
                }  # fmt: skip
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def schemas(url: str, turns: int) -> None:
    """Prints what leaving the tools out after the first turn changes in the rendered prompts."""

    def post(path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)

    tools = [
        {"type": "function", "function": {
            "name": f"look_at_{thing}", "description": f"Looks at the {thing}, and says what state it is in and since when.",
            "parameters": {"type": "object", "properties": {
                "since": {"type": "string", "description": "A day, as 2026-01-31."}, "limit": {"type": "integer", "default": 10},
            }, "required": ["since"]},
        }} for thing in THINGS[:10]
    ]  # fmt: skip
    print("| tools | prompt tokens | found again | computed | computed in turn 2 | of turn 10 |")
    print("|---|---|---|---|---|---|")
    for name in ("in each request", "in the first one"):
        talk, before = Talk(1, turns), []
        messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
        total, computed = 0, []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"{talk.note(turn)} {talk.question(turn)}"})
            body: dict[str, Any] = {"messages": messages}
            if turn == 0 or name == "in each request":
                body["tools"] = tools
            tokens = post("/tokenize", {"content": post("/apply-template", body)["prompt"]})["tokens"]
            common = next((at for at, (one, two) in enumerate(zip(before, tokens)) if one != two), min(len(before), len(tokens)))
            total += len(tokens)
            computed.append(len(tokens) - common)
            before = tokens
            messages.append({"role": "assistant", "content": "open."})
        print(f"| {name} | {total:,} | {1 - sum(computed) / total:.1%} | {sum(computed):,} | {computed[1]:,} | {computed[-1]:,} |")


def report(results: Path, prices: Prices | None, model: str) -> None:
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    loads = sorted(line["load"] for line in lines)
    print(f"load of the machine: {loads[0]} to {loads[-1]}, median {statistics.median(loads)}")
    print("| strategy | sessions × turns | hit rate | answers right | prompt tokens computed | first token p50 | p95 | bill |")
    print("|---|---|---|---|---|---|---|---|")
    for strategy in STRATEGIES:
        own = [line for line in lines if line["strategy"] == strategy]
        if not own:
            continue
        turns = [turn for line in own for turn in line["turns"]]
        everything = turns + [call for line in own for call in line["warm"]]
        computed = sum(call["tokens"] - call["cached"] for call in everything)
        first = sorted(turn["first"] for turn in turns)
        bill = "–"
        if prices is not None:
            money = sum(
                prices.money(model, call["tokens"], call["written"], tokens_cached=call["cached"]) for call in everything
            )
            bill = f"{money / len(own) * 1e6:,.0f}"
        print(
            f"| {strategy} | {len(own)} × {len(own[0]['turns'])} | "
            f"{sum(turn['cached'] for turn in turns) / sum(turn['tokens'] for turn in turns):.1%} | "
            f"{statistics.mean(turn['right'] for turn in turns):.0%} | {computed:,} | {statistics.median(first):.2f} s | "
            f"{first[int(len(first) * 0.95)]:.2f} s | {bill} |"
        )
    if prices is not None:
        print(f"bill: of a million sessions, in {prices.currency}, at the prices of {model}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("run")
    command.add_argument("server")
    command.add_argument("results", type=Path)
    command.add_argument("--sessions", type=int, default=50)
    command.add_argument("--turns", type=int, default=10)
    command.add_argument("--few", type=int, default=10, help="sessions of 'tools once'")
    command = commands.add_parser("report")
    command.add_argument("results", type=Path)
    command.add_argument("--prices", type=Path)
    command.add_argument("--model", default="")
    command = commands.add_parser("schemas")
    command.add_argument("server")
    arguments = parser.parse_args()
    if arguments.what == "schemas":
        schemas(arguments.server, 10)
    elif arguments.what == "run":
        measure(arguments.server, arguments.results, arguments.sessions, arguments.turns, arguments.few)
    else:
        report(arguments.results, Prices(arguments.prices) if arguments.prices else None, arguments.model)


if __name__ == "__main__":
    main()
