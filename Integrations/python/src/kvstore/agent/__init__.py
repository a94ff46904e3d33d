"""What an agent keeps besides KV, in the same store: runs and their steps, tool results, answers, embeddings.

    import kvstore.agent

    with kvstore.agent.AgentStore("~/.cache/my-agent") as agents:
        with agents.run("r1", user="ann", session="chat 7") as run:
            plan = run.step("plan", make_plan, question)
            for part in plan:
                run.step("work", work_on, part)

A program that is killed and started again is answered what it has done already, and goes on. docs/agents.md explains the layers.
Messages are in kvstore.agent.memory, embeddings in kvstore.agent.embeddings (needs numpy), the transports of httpx in
kvstore.agent.http, runs as files in kvstore.agent.carry.
"""

from .answers import Answers
from .blocks import STORED_BYTES_MAX, Entry, NotStoredError, TooLargeError
from .canonical import NotCanonicalError, canonical
from .log import DivergenceError, Event, Opening, RecordedError
from .metrics import Metrics
from .policies import Policies, PolicyError
from .prices import Prices
from .memory import Memory
from .run import Run
from .runtime import Runtime
from .scope import Scope
from .steps import Checkpoint, LostStepError, RunBusyError, RunChangedError, Step, UnconfirmedStepError
from .store import AgentStore, RunRecord
from .tools import Answer, RecordedToolError, last_answer, tool_cache

__all__ = [
    "STORED_BYTES_MAX",
    "AgentStore",
    "Answer",
    "Answers",
    "Checkpoint",
    "DivergenceError",
    "Entry",
    "Event",
    "LostStepError",
    "Memory",
    "Metrics",
    "NotCanonicalError",
    "NotStoredError",
    "Opening",
    "Policies",
    "PolicyError",
    "Prices",
    "RecordedError",
    "RecordedToolError",
    "Run",
    "RunBusyError",
    "RunChangedError",
    "RunRecord",
    "Runtime",
    "Scope",
    "Step",
    "TooLargeError",
    "UnconfirmedStepError",
    "canonical",
    "last_answer",
    "tool_cache",
]
