"""The OpenAI Agents SDK with a store: the model's answers by the transport of httpx, a tool's results by the decorator."""

from __future__ import annotations

import httpx2
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

from kvstore.agent import AgentStore, tool_cache
from kvstore.agent.http import async_answer_transport

set_tracing_disabled(True)


@function_tool
@tool_cache(ttl="30m", scope="user")
def price(item: str) -> str:
    """What an item costs.

    Args:
        item: Its name.
    """
    print("looked up", item)
    return "42 euro"


def ask(store: AgentStore, user: str, base_url: str, question: str) -> str:
    transport = async_answer_transport(store, httpx2, scope="user", ttl="1w", sampled=True)
    client = AsyncOpenAI(base_url=base_url, api_key="none", http_client=httpx2.AsyncClient(transport=transport))
    agent = Agent("clerk", model=OpenAIChatCompletionsModel("m", openai_client=client), tools=[price])
    with store.scope(user=user):
        return str(Runner.run_sync(agent, question).final_output)
