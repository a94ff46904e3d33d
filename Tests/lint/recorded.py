"""Conversations of a recorded log as transcripts to break: in OpenAI's form, whatever interface they came through."""

import json


def plain(content):
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(block.get("text") or block.get("thinking") or "" for block in content if isinstance(block, dict))


def from_messages(body):
    system = plain(body.get("system"))
    messages = [{"role": "system", "content": system}] if system else []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text", "text": message["content"]}]
        made = {"role": message["role"], "content": plain([b for b in blocks if b.get("type") in ("text", None)])}
        calls = [b for b in blocks if b.get("type") == "tool_use"]
        if calls:
            made["tool_calls"] = [{"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": json.dumps(c["input"])}} for c in calls]
        results = [b for b in blocks if b.get("type") == "tool_result"]
        messages += [{"role": "tool", "tool_call_id": r["tool_use_id"], "content": plain(r["content"])} for r in results] or [made]
    tools = [{"type": "function", "function": {"name": t["name"], "description": t.get("description", ""), "parameters": t["input_schema"]}} for t in body.get("tools", [])]
    return {"model": body.get("model"), "tools": tools, "messages": messages}


def from_responses(body):
    messages = [{"role": "system", "content": body.get("instructions") or ""}]
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    for item in items:
        if item.get("type") == "function_call":
            messages.append({"role": "assistant", "content": "", "tool_calls": [{"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}]})
        elif item.get("type") == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": plain(item["output"])})
        elif "role" in item:
            messages.append({"role": item["role"], "content": plain(item["content"])})
    tools = [{"type": "function", "function": {key: t[key] for key in ("name", "description", "parameters") if key in t}} for t in body.get("tools", [])]
    return {"model": body.get("model"), "tools": tools, "messages": messages}


def from_chat(body):
    messages = []
    for message in body["messages"]:
        message = {**message, "content": plain(message.get("content"))}
        message["role"] = {"developer": "system", "tool-response": "user", "tool-call": "assistant"}.get(message["role"], message["role"])
        messages.append(message)
    return {"model": body.get("model"), "tools": body.get("tools", []), "messages": messages}


def conversations(path, least=8):
    """The last request of each conversation that has at least so many messages."""
    found = []
    for line in open(path, encoding="utf-8"):
        body = json.loads(line)["request"]
        made = from_responses(body) if "input" in body else from_messages(body) if "system" in body else from_chat(body)
        if found and made["messages"][: len(found[-1]["messages"])] == found[-1]["messages"]:
            found[-1] = made
        else:
            found.append(made)
    found = [c for c in found if len(c["messages"]) >= least]
    for conversation in found:
        distinct(conversation["messages"])
    return found


def distinct(messages):
    """A small model says the same again and again: numbered, so that each place has one name."""
    seen = {}
    for message in messages:
        key = (message["role"], message["content"])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            # On each line: no two of them are the same text with something behind it.
            message["content"] = "\n".join(f"{line} (said {seen[key]} times)" for line in message["content"].split("\n"))
