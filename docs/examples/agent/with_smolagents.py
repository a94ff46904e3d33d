"""smolagents with a store: the model's answers by the transport of httpx, a tool's results by the decorator."""

from __future__ import annotations

import httpx2
from smolagents import OpenAIServerModel, ToolCallingAgent, tool

from kvstore.agent import AgentStore, tool_cache
from kvstore.agent.http import answer_transport


@tool_cache(ttl="30m", scope="user")
def look_up(item: str) -> str:
    print("looked up", item)
    return "42 euro"


@tool
def price(item: str) -> str:
    """What an item costs.

    Args:
        item: Its name.
    """
    return look_up(item)


def ask(agents: AgentStore, user: str, base_url: str, question: str) -> str:
    transport = answer_transport(agents, httpx2, scope="user", ttl="1w", sampled=True)
    model = OpenAIServerModel(
        "m", api_base=base_url, api_key="none", client_kwargs={"http_client": httpx2.Client(transport=transport)}
    )
    with agents.scope(user=user):
        return str(ToolCallingAgent([price], model, verbosity_level=0).run(question))
