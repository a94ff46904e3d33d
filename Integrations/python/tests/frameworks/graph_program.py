"""A graph with a subgraph that asks a person, for test_langgraph_graphs: STORE EFFECTS PHASE. Each effect is a line of a file."""

from __future__ import annotations

import asyncio
import json
import operator
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from kvstore.agent import AgentStore
from kvstore.langgraph import KVStoreSaver

STORE, EFFECTS, PHASE = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
CONFIG: Any = {"configurable": {"thread_id": "t1"}}


class State(TypedDict):
    topic: str
    notes: Annotated[list[str], operator.add]


def effect(name: str) -> None:
    with EFFECTS.open("a") as file:
        file.write(f"{name}\n")


def wait_to_be_killed(why: str) -> None:
    print(why, flush=True)
    time.sleep(600)


def research(state: State) -> dict[str, Any]:
    effect("research")
    return {"notes": [f"read about {state['topic']}"]}


def draft(state: State) -> dict[str, Any]:
    if PHASE == "killed-in-a-node":
        wait_to_be_killed("in draft")
    effect("draft")
    return {"notes": ["x" * 20_000]}


def collect(state: State) -> dict[str, Any]:
    effect("collect")
    return {"notes": ["collected"]}


def approve(state: State) -> dict[str, Any]:
    answer = interrupt({"question": f"publish {state['topic']}?"})
    effect(f"approved {answer}")
    return {"notes": [f"approved: {answer}"]}


def publish(state: State) -> dict[str, Any]:
    effect("publish")
    return {"notes": ["published"]}


def graph(saver: KVStoreSaver) -> Any:
    inner = StateGraph(State)
    inner.add_node("collect", collect)
    inner.add_node("approve", approve)
    inner.add_edge(START, "collect")
    inner.add_edge("collect", "approve")
    inner.add_edge("approve", END)
    outer = StateGraph(State)
    for name, node in (("research", research), ("draft", draft), ("review", inner.compile()), ("publish", publish)):
        outer.add_node(name, node)
    for one, other in ((START, "research"), ("research", "draft"), ("draft", "review"), ("review", "publish"), ("publish", END)):
        outer.add_edge(one, other)
    return outer.compile(checkpointer=saver)


def main() -> None:
    with AgentStore(STORE) as agents:
        compiled = graph(KVStoreSaver(agents, user="ann"))
        if PHASE == "killed-in-a-node":
            compiled.invoke({"topic": "valves", "notes": []}, CONFIG, durability="sync")
        elif PHASE == "killed-at-the-interrupt":
            found = compiled.invoke(None, CONFIG, durability="sync")
            assert found["__interrupt__"][0].value == {"question": "publish valves?"}, found
            wait_to_be_killed("interrupted")
        elif PHASE == "resumed":
            print(json.dumps(asyncio.run(compiled.ainvoke(Command(resume="yes"), CONFIG, durability="sync"))["notes"]))
        elif PHASE == "time-travel":
            before = list(compiled.get_state_history(CONFIG))
            past = next(state for state in before if state.next == ("draft",))
            other = compiled.update_state(past.config, {"topic": "pumps"})
            found = compiled.invoke(None, other, durability="sync")
            assert found["__interrupt__"][0].value == {"question": "publish pumps?"}, found
            found = compiled.invoke(Command(resume="no"), CONFIG, durability="sync")
            # What was before is as it was.
            kept = [state.values for state in compiled.get_state_history(CONFIG) if state.config in [old.config for old in before]]
            assert kept == [state.values for state in before]
            print(json.dumps([found["topic"], *found["notes"]]))


main()
