"""pydantic-ai with a store: the model's answers by the transport of httpx, a tool's results by the decorator."""

from __future__ import annotations

import httpx2
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from kvstore.agent import AgentStore, tool_cache
from kvstore.agent.http import async_answer_transport


@tool_cache(ttl="30m", scope="user")
def price(item: str) -> str:
    """What an item costs.

    Args:
        item: Its name.
    """
    print("looked up", item)
    return "42 euro"


def ask(agents: AgentStore, user: str, base_url: str, question: str) -> str:
    transport = async_answer_transport(agents, httpx2, scope="user", ttl="1w", sampled=True)
    client = AsyncOpenAI(base_url=base_url, api_key="none", http_client=httpx2.AsyncClient(transport=transport))
    agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)), tools=[price])
    with agents.scope(user=user):
        return agent.run_sync(question).output
