"""Runs agents of six kinds, with the clients that people use, against the OpenAI and Anthropic interfaces of a local server.

    agents.py URL SESSIONS

Each session has a task and files of its own (texts of ours); the tools read, search and note. The model may be as small as it likes:
where it has to call a tool, the interface makes it. What goes over the wire is written down by whoever stands between.
"""

import json
import sys
import warnings
from typing import Annotated

import breakages
from pydantic import Field

warnings.filterwarnings("ignore")
URL, COUNT = sys.argv[1].rstrip("/"), int(sys.argv[2])
STEPS, ANSWER = 6, 80
# A small model would never end a longer one.
Short = Annotated[str, Field(max_length=24)]


class Files:
    """A folder that exists only in memory."""

    def __init__(self, seed):
        texts = breakages.Texts(seed + 700)
        self.files = {f"{name}.{end}": texts.lines(10) for name, end in zip(texts.random.sample(breakages.WORDS, 5), ("py", "md", "txt", "py", "toml"))}
        self.notes = []
        self.task = f"Look at the files, find out {texts.sentence(6, 10).lower()[:-1]}, and note what you found. {texts.text(2)}"
        self.rules = f"You are a careful agent. {texts.text(4)}\n\n# Rules\n- {texts.sentence()}\n- {texts.sentence()}\n- Call one tool at a time.\n\n# Skills\n## Reading\n{texts.text(2)}\n\n## Notes\n{texts.text(2)}"

    def list_files(self) -> str:
        """List the files of the folder, with their sizes."""
        return json.dumps([{"name": name, "bytes": len(text)} for name, text in self.files.items()])

    def read_file(self, name: Short) -> str:
        """Read one file.

        Args:
            name: The name of the file, as it stands in the list.
        """
        return self.files.get(name) or next(iter(self.files.values()))

    def search(self, word: Short) -> str:
        """Search all files for a word, and return the lines that have it.

        Args:
            word: The word to look for.
        """
        found = [f"{name}: {line}" for name, text in self.files.items() for line in text.split("\n") if word and word.lower()[:4] in line.lower()]
        return "\n".join(found[:8]) or "nothing found"

    def note(self, text: Short) -> str:
        """Write a note for the report.

        Args:
            text: The note.
        """
        self.notes.append(text)
        return f"note {len(self.notes)} is written"

    def call(self, name, arguments):
        tools = {"list_files": self.list_files, "read_file": self.read_file, "search": self.search, "note": self.note}
        values = list(arguments.values()) if isinstance(arguments, dict) else []
        try:
            return tools[name](*[str(v) for v in values][: 0 if name == "list_files" else 1])
        except (KeyError, TypeError) as problem:
            return f"error: {problem}"


TOOLS = [("list_files", "List the files of the folder, with their sizes.", None), ("read_file", "Read one file.", "name"),
         ("search", "Search all files for a word, and return the lines that have it.", "word"), ("note", "Write a note for the report.", "text")]


def schema(argument):
    properties = {argument: {"type": "string", "maxLength": 24}} if argument else {}
    return {"type": "object", "properties": properties, "required": list(properties)}


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return {}


def openai_chat(files):
    from openai import OpenAI
    client = OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    tools = [{"type": "function", "function": {"name": n, "description": d, "parameters": schema(a)}} for n, d, a in TOOLS]
    messages = [{"role": "system", "content": files.rules}, {"role": "user", "content": files.task}]
    for step in range(STEPS):
        answer = client.chat.completions.create(
            model="local", messages=messages, tools=tools, max_tokens=ANSWER, temperature=0.8, seed=step, tool_choice="auto" if step % 4 == 3 else "required")
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or []:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": files.call(call.function.name, parsed(call.function.arguments))})
        if not message.tool_calls:
            messages.append({"role": "user", "content": "Go on, and look at another file."})


def anthropic_messages(files):
    from anthropic import Anthropic
    client = Anthropic(base_url=URL, api_key="none", max_retries=0)
    tools = [{"name": n, "description": d, "input_schema": schema(a)} for n, d, a in TOOLS]
    messages = [{"role": "user", "content": files.task}]
    for step in range(STEPS):
        answer = client.messages.create(
            model="local", max_tokens=ANSWER, tools=tools, messages=messages, tool_choice={"type": "auto" if step % 4 == 3 else "any"},
            system=[{"type": "text", "text": files.rules, "cache_control": {"type": "ephemeral"}}])
        content = [block.model_dump(exclude_none=True) for block in answer.content]
        messages.append({"role": "assistant", "content": content or "Nothing."})
        results = [{"type": "tool_result", "tool_use_id": b["id"], "content": files.call(b["name"], b["input"])} for b in content if b["type"] == "tool_use"]
        messages.append({"role": "user", "content": results or "Go on, and look at another file."})


def openai_responses(files):
    from openai import OpenAI
    client = OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    tools = [{"type": "function", "name": n, "description": d, "parameters": schema(a)} for n, d, a in TOOLS]
    items = [{"role": "user", "content": files.task}]
    for step in range(STEPS):
        answer = client.responses.create(
            model="local", instructions=files.rules, input=items, tools=tools, max_output_tokens=ANSWER, tool_choice="auto" if step % 4 == 3 else "required")
        called = False
        for item in answer.output:
            items.append(item.model_dump(exclude_none=True))
            if item.type == "function_call":
                called = True
                items.append({"type": "function_call_output", "call_id": item.call_id, "output": files.call(item.name, parsed(item.arguments))})
        if not called:
            items.append({"role": "user", "content": "Go on, and look at another file."})


def pydantic_ai(files):
    from pydantic_ai import Agent, UsageLimits
    from pydantic_ai.exceptions import AgentRunError
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("local", provider=OpenAIProvider(base_url=URL + "/v1", api_key="none"))
    agent = Agent(model, system_prompt=files.rules, retries=8, tools=[files.list_files, files.read_file, files.search, files.note])
    settings = {"max_tokens": ANSWER, "temperature": 0.8, "extra_body": {"tool_choice": "required"}}
    try:
        agent.run_sync(files.task, usage_limits=UsageLimits(request_limit=STEPS), model_settings=settings)
    except AgentRunError as end:
        print(f"  ended: {type(end).__name__}: {str(end)[:120]}")


def smolagents_code(files):
    from smolagents import CodeAgent, OpenAIServerModel, tool
    model = OpenAIServerModel(model_id="local", api_base=URL + "/v1", api_key="none", max_tokens=ANSWER)
    agent = CodeAgent(tools=[tool(files.read_named)], model=model, max_steps=STEPS - 2, verbosity_level=0, instructions=files.rules[:400])
    agent.run(files.task)


def smolagents_tools(files):
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool
    model = OpenAIServerModel(model_id="local", api_base=URL + "/v1", api_key="none", max_tokens=ANSWER)
    agent = ToolCallingAgent(tools=[tool(files.read_named)], model=model, max_steps=STEPS - 2, verbosity_level=0, instructions=files.rules[:400])
    agent.run(files.task)


def openai_agents(files):
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from agents.exceptions import AgentsException
    from openai import AsyncOpenAI
    set_tracing_disabled(True)
    model = OpenAIChatCompletionsModel(model="local", openai_client=AsyncOpenAI(base_url=URL + "/v1", api_key="none"))
    agent = Agent(name="reader", instructions=files.rules, model=model, reset_tool_choice=False, tools=[function_tool(f) for f in (files.list_files, files.read_file, files.search, files.note)],
                  model_settings=ModelSettings(tool_choice="required", max_tokens=ANSWER, temperature=0.8))
    try:
        Runner.run_sync(agent, files.task, max_turns=STEPS)
    except AgentsException as end:
        print(f"  ended: {type(end).__name__}: {str(end)[:120]}")


KINDS = [openai_chat, anthropic_messages, pydantic_ai, openai_agents, smolagents_code, openai_responses, smolagents_tools]


def main():
    failed = 0
    for number in range(COUNT):
        kind, files = KINDS[number % len(KINDS)], Files(number)

        def read_named(name: str) -> str:
            """Read one file of the folder.

            Args:
                name: The name of the file.
            """
            return files.read_file(name)
        files.read_named = read_named
        try:
            kind(files)
            print(f"session {number + 1}: {kind.__name__}", flush=True)
        except Exception as problem:  # noqa: BLE001
            failed += 1
            print(f"session {number + 1}: {kind.__name__}: {type(problem).__name__}: {str(problem)[:300]}", flush=True)
    sys.exit(1 if failed > COUNT // 4 else 0)


main()
