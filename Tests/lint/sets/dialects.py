"""A conversation as the bodies of many interfaces: each writes it, and says where everything went."""

import json

def anthropic(c):
    places = {("system",): ("system[0].text", 0), ("model",): ("model", 0), ("tools",): ("tools", 0)}
    messages = []
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        if t["kind"] == "user":
            messages.append({"role": "user", "content": [{"type": "text", "text": t["text"]}]})
            places[i, "text"] = (f"{at}.content[0].text", 0)
        elif t["kind"] == "assistant":
            content = []
            if t.get("reasoning"):
                places[i, "reasoning"] = (f"{at}.content[{len(content)}]", 0)
                content.append({"type": "thinking", "thinking": t["reasoning"], "signature": "sig" + str(i)})
            places[i, "text"] = (f"{at}.content[{len(content)}].text", 0)
            content.append({"type": "text", "text": t["text"]})
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.content[{len(content)}].input", 0)
                places[i, "id", n] = (f"{at}.content[{len(content)}].id", 0)
                content.append({"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["args"]})
            messages.append({"role": "assistant", "content": content})
        else:
            # Results of one turn are one message.
            if messages and messages[-1]["role"] == "user" and i and c["talk"][i - 1]["kind"] == "result":
                at = f"messages[{len(messages) - 1}]"
            else:
                messages.append({"role": "user", "content": []})
            places[i, "text"] = (f"{at}.content[{len(messages[-1]['content'])}].content", 0)
            messages[-1]["content"].append({"type": "tool_result", "tool_use_id": t["id"], "content": t["text"]})
        places[i,] = (at, 0)
    tools = [{"name": t["name"], "description": t["text"], "input_schema": t["schema"]} for t in c["tools"]]
    for n, t in enumerate(tools):
        places["tool", n] = (f"tools[{n}]", 0)
        places["tool text", n] = (f"tools[{n}].description", 0)
    return {"model": c["model"], "max_tokens": 1024, "system": [{"type": "text", "text": c["system"], "cache_control": {"type": "ephemeral", "ttl": "1h"}}], "tools": tools, "messages": messages, **c["more"]}, places


def responses(c):
    places = {("system",): ("instructions", 0), ("model",): ("model", 0), ("tools",): ("tools", 0)}
    items = []
    for i, t in enumerate(c["talk"]):
        places[i,] = (f"input[{len(items)}]", 0)
        if t["kind"] == "user":
            places[i, "text"] = (f"input[{len(items)}].content[0].text", 0)
            items.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": t["text"]}]})
        elif t["kind"] == "assistant":
            if t.get("reasoning"):
                places[i, "reasoning"] = (f"input[{len(items)}]", 0)
                items.append({"type": "reasoning", "id": f"rs_{i}", "summary": [{"type": "summary_text", "text": t["reasoning"]}]})
            places[i, "text"] = (f"input[{len(items)}].content[0].text", 0)
            items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": t["text"]}]})
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"input[{len(items)}].arguments", 0)
                places[i, "id", n] = (f"input[{len(items)}].call_id", 0)
                items.append({"type": "function_call", "call_id": call["id"], "name": call["name"], "arguments": call.get("raw") or json.dumps(call["args"], ensure_ascii=False)})
        else:
            places[i, "text"] = (f"input[{len(items)}].output", 0)
            items.append({"type": "function_call_output", "call_id": t["id"], "output": t["text"]})
    tools = [{"type": "function", "name": t["name"], "description": t["text"], "parameters": t["schema"], "strict": True} for t in c["tools"]]
    for n, t in enumerate(tools):
        places["tool", n] = (f"tools[{n}]", 0)
        places["tool text", n] = (f"tools[{n}].description", 0)
    return {"model": c["model"], "instructions": c["system"], "tools": tools, "input": items, "store": False, **c["more"]}, places


def chat(c):
    places = {("system",): ("messages[0].content", 0), ("model",): ("model", 0), ("tools",): ("tools", 0)}
    messages = [{"role": "developer", "content": c["system"]}]
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        places[i,], places[i, "text"] = (at, 0), (f"{at}.content", 0)
        if t["kind"] == "user":
            messages.append({"role": "user", "content": t["text"]})
        elif t["kind"] == "assistant":
            message = {"role": "assistant", "content": t["text"]}
            if t.get("reasoning"):
                message["reasoning_content"] = t["reasoning"]
                places[i, "reasoning"] = (at, 0)
            if t["calls"]:
                message["tool_calls"] = []
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.tool_calls[{n}].function.arguments", 0)
                places[i, "id", n] = (f"{at}.tool_calls[{n}].id", 0)
                message["tool_calls"].append({"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call.get("raw") or json.dumps(call["args"], ensure_ascii=False)}})
            messages.append(message)
        else:
            messages.append({"role": "tool", "tool_call_id": t["id"], "content": t["text"]})
    tools = [{"type": "function", "function": {"name": t["name"], "description": t["text"], "parameters": t["schema"]}} for t in c["tools"]]
    for n, t in enumerate(tools):
        places["tool", n] = (f"tools[{n}]", 0)
        places["tool text", n] = (f"tools[{n}].function.description", 0)
    return {"model": c["model"], "messages": messages, "tools": tools, "temperature": 0.2, **c["more"]}, places


def gemini(c):
    places = {("system",): ("systemInstruction.parts[0].text", 0), ("model",): ("model", 0), ("tools",): ("tools", 0)}
    contents = []
    for i, t in enumerate(c["talk"]):
        at = f"contents[{len(contents)}]"
        places[i,] = (at, 0)
        if t["kind"] == "user":
            places[i, "text"] = (f"{at}.parts[0].text", 0)
            contents.append({"role": "user", "parts": [{"text": t["text"]}]})
        elif t["kind"] == "assistant":
            parts = []
            if t.get("reasoning"):
                places[i, "reasoning"] = (f"{at}.parts[0]", 0)
                parts.append({"thought": True, "text": t["reasoning"]})
            places[i, "text"] = (f"{at}.parts[{len(parts)}].text", 0)
            parts.append({"text": t["text"]})
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.parts[{len(parts)}].functionCall.args", 0)
                places[i, "id", n] = (f"{at}.parts[{len(parts)}].functionCall.id", 0)
                parts.append({"functionCall": {"id": call["id"], "name": call["name"], "args": call["args"]}})
            contents.append({"role": "model", "parts": parts})
        else:
            places[i, "text"] = (f"{at}.parts[0].functionResponse.response.result", 0)
            contents.append({"role": "user", "parts": [{"functionResponse": {"id": t["id"], "name": t["name"], "response": {"result": t["text"]}}}]})
    tools = [{"functionDeclarations": [{"name": t["name"], "description": t["text"], "parameters": t["schema"]} for t in c["tools"]]}]
    for n, t in enumerate(c["tools"]):
        places["tool", n] = (f"tools[0].functionDeclarations[{n}]", 0)
        places["tool text", n] = (f"tools[0].functionDeclarations[{n}].description", 0)
    return {"model": c["model"], "systemInstruction": {"parts": [{"text": c["system"]}]}, "tools": tools, "contents": contents, "generationConfig": {"temperature": 0.1}, **c["more"]}, places


def bedrock(c):
    places = {("system",): ("system[0].text", 0), ("model",): ("modelId", 0), ("tools",): ("toolConfig.tools", 0)}
    messages = []
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        places[i,] = (at, 0)
        if t["kind"] == "user":
            places[i, "text"] = (f"{at}.content[0].text", 0)
            messages.append({"role": "user", "content": [{"text": t["text"]}]})
        elif t["kind"] == "assistant":
            content = []
            if t.get("reasoning"):
                places[i, "reasoning"] = (f"{at}.content[0]", 0)
                content.append({"reasoningContent": {"reasoningText": {"text": t["reasoning"], "signature": "s"}}})
            places[i, "text"] = (f"{at}.content[{len(content)}].text", 0)
            content.append({"text": t["text"]})
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.content[{len(content)}].toolUse.input", 0)
                places[i, "id", n] = (f"{at}.content[{len(content)}].toolUse.toolUseId", 0)
                content.append({"toolUse": {"toolUseId": call["id"], "name": call["name"], "input": call["args"]}})
            messages.append({"role": "assistant", "content": content})
        else:
            places[i, "text"] = (f"{at}.content[0].toolResult.content[0].text", 0)
            messages.append({"role": "user", "content": [{"toolResult": {"toolUseId": t["id"], "content": [{"text": t["text"]}], "status": "success"}}]})
    tools = [{"toolSpec": {"name": t["name"], "description": t["text"], "inputSchema": {"json": t["schema"]}}} for t in c["tools"]]
    for n, t in enumerate(tools):
        places["tool", n] = (f"toolConfig.tools[{n}]", 0)
        places["tool text", n] = (f"toolConfig.tools[{n}].toolSpec.description", 0)
    return {"modelId": c["model"], "system": [{"text": c["system"]}], "toolConfig": {"tools": tools}, "messages": messages, "inferenceConfig": {"maxTokens": 500}, **c["more"]}, places


def renamed(c):
    """No field has a name that anyone has heard of."""
    places = {("system",): ("briefing", 0), ("tools",): ("abilities", 0)}
    entries = []
    for i, t in enumerate(c["talk"]):
        at = f"dialogue[{len(entries)}]"
        places[i,], places[i, "text"] = (at, 0), (f"{at}.utterance", 0)
        if t["kind"] == "user":
            entries.append({"who": "human", "utterance": t["text"]})
        elif t["kind"] == "assistant":
            entry = {"who": "assistant", "utterance": t["text"]}
            if t.get("reasoning"):
                entry["inner_voice"] = t["reasoning"]
                places[i, "reasoning"] = (at, 0)
            if t["calls"]:
                entry["invocations"] = []
            for n, call in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.invocations[{n}].with", 0)
                places[i, "id", n] = (f"{at}.invocations[{n}].handle", 0)
                entry["invocations"].append({"handle": call["id"], "do": call["name"], "with": call["args"]})
            entries.append(entry)
        else:
            entries.append({"who": "tool", "handle": t["id"], "utterance": t["text"]})
    tools = [{"label": t["name"], "purpose": t["text"], "accepts": t["schema"]} for t in c["tools"]]
    for n, t in enumerate(tools):
        places["tool", n] = (f"abilities[{n}]", 0)
        places["tool text", n] = (f"abilities[{n}].purpose", 0)
    return {"engine": c["model"], "briefing": c["system"], "abilities": tools, "dialogue": entries, "creativity": 0.3, **c["more"]}, places


def text_prompt(head, foot):
    def make(c):
        places = {("model",): ("model", 0)}
        text = ""

        def add(role, body, key):
            nonlocal text
            text += head(role)
            if key is not None:
                places[key] = ("prompt", len(text))
            text += body + foot
        add("system", c["system"], ("system",))
        for i, t in enumerate(c["talk"]):
            places[i,] = ("prompt", len(text))
            role = {"user": "user", "assistant": "assistant", "result": "tool"}[t["kind"]]
            add(role, t["text"], (i, "text"))
            for n, call in enumerate(t.get("calls", ())):
                add("assistant", "", None)
                text = text[: -len(foot)] if foot else text
                places[i, "args", n] = ("prompt", len(text))
                text += call.get("raw") or json.dumps(call["args"], ensure_ascii=False)
                text += foot
        return {"model": c["model"], "prompt": text + head("assistant"), "n_predict": 64, **c["more"]}, places
    return make


def ollama(c):
    """/api/chat: arguments are values, results have no ids."""
    places = {("system",): ("messages[0].content", 0), ("tools",): ("tools", 0), ("model",): ("model", 0)}
    messages = [{"role": "system", "content": c["system"]}]
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        places[i,], places[i, "text"] = (at, 0), (f"{at}.content", 0)
        m = {"role": {"user": "user", "assistant": "assistant", "result": "tool"}[t["kind"]], "content": t["text"]}
        if t.get("reasoning"):
            m["thinking"] = t["reasoning"]
            places[i, "reasoning"] = (at, 0)
        if t.get("calls"):
            m["tool_calls"] = [{"function": {"name": k["name"], "arguments": k["args"]}} for k in t["calls"]]
            places[i, "args", 0] = (f"{at}.tool_calls[0].function.arguments", 0)
        if t["kind"] == "result":
            m["tool_name"] = t["name"]
        messages.append(m)
    tools = [{"type": "function", "function": {"name": t["name"], "description": t["text"], "parameters": t["schema"]}} for t in c["tools"]]
    for n in range(len(tools)):
        places["tool", n], places["tool text", n] = (f"tools[{n}]", 0), (f"tools[{n}].function.description", 0)
    return {"model": c["model"], "messages": messages, "tools": tools, "stream": False, "options": {"num_ctx": 8192, "temperature": 0}, "keep_alive": "10m", **c["more"]}, places


def cohere(c):
    """v1: a preamble, a history, and the newest message by itself."""
    places = {("system",): ("preamble", 0), ("tools",): ("tools", 0), ("model",): ("model", 0)}
    history = []
    for i, t in enumerate(c["talk"]):
        at = f"chat_history[{len(history)}]"
        places[i,] = (at, 0)
        if t["kind"] == "result":
            places[i, "text"] = (f"{at}.tool_results[0].outputs[0].text", 0)
            history.append({"role": "TOOL", "tool_results": [{"call": {"name": t["name"], "parameters": {}}, "outputs": [{"text": t["text"]}]}]})
        else:
            places[i, "text"] = (f"{at}.message", 0)
            m = {"role": "USER" if t["kind"] == "user" else "CHATBOT", "message": t["text"]}
            if t.get("calls"):
                m["tool_calls"] = [{"name": k["name"], "parameters": k["args"]} for k in t["calls"]]
                places[i, "args", 0] = (f"{at}.tool_calls[0].parameters", 0)
            history.append(m)
    tools = [{"name": t["name"], "description": t["text"], "parameter_definitions": t["schema"]} for t in c["tools"]]
    for n in range(len(tools)):
        places["tool", n], places["tool text", n] = (f"tools[{n}]", 0), (f"tools[{n}].description", 0)
    return {"model": c["model"], "preamble": c["system"], "chat_history": history, "message": "", "tools": tools, "temperature": 0.3, **c["more"]}, places


def ai_sdk(c):
    """The provider's prompt of a TypeScript kit: parts with types, camel case."""
    places = {("system",): ("prompt[0].content", 0), ("tools",): ("tools", 0), ("model",): ("modelId", 0)}
    prompt = [{"role": "system", "content": c["system"]}]
    for i, t in enumerate(c["talk"]):
        at = f"prompt[{len(prompt)}]"
        places[i,] = (at, 0)
        if t["kind"] == "user":
            places[i, "text"] = (f"{at}.content[0].text", 0)
            prompt.append({"role": "user", "content": [{"type": "text", "text": t["text"]}]})
        elif t["kind"] == "assistant":
            parts = []
            if t.get("reasoning"):
                places[i, "reasoning"] = (f"{at}.content[0]", 0)
                parts.append({"type": "reasoning", "text": t["reasoning"]})
            places[i, "text"] = (f"{at}.content[{len(parts)}].text", 0)
            parts.append({"type": "text", "text": t["text"]})
            for n, k in enumerate(t["calls"]):
                places[i, "args", n] = (f"{at}.content[{len(parts)}].input", 0)
                places[i, "id", n] = (f"{at}.content[{len(parts)}].toolCallId", 0)
                parts.append({"type": "tool-call", "toolCallId": k["id"], "toolName": k["name"], "input": k["args"]})
            prompt.append({"role": "assistant", "content": parts})
        else:
            places[i, "text"] = (f"{at}.content[0].output.value", 0)
            prompt.append({"role": "tool", "content": [{"type": "tool-result", "toolCallId": t["id"], "toolName": t["name"], "output": {"type": "text", "value": t["text"]}}]})
    tools = [{"type": "function", "name": t["name"], "description": t["text"], "inputSchema": t["schema"]} for t in c["tools"]]
    for n in range(len(tools)):
        places["tool", n], places["tool text", n] = (f"tools[{n}]", 0), (f"tools[{n}].description", 0)
    return {"modelId": c["model"], "prompt": prompt, "tools": tools, "temperature": 0, "toolChoice": {"type": "auto"}, **c["more"]}, places


def langchain(c):
    """Messages as objects of classes, as tracing writes them."""
    places = {("system",): ("messages[0].kwargs.content", 0), ("model",): ("model", 0), ("tools",): ("tools", 0)}
    messages = [{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "SystemMessage"], "kwargs": {"content": c["system"], "type": "system"}}]
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        places[i,], places[i, "text"] = (at, 0), (f"{at}.kwargs.content", 0)
        name, kind = {"user": ("HumanMessage", "human"), "assistant": ("AIMessage", "ai"), "result": ("ToolMessage", "tool")}[t["kind"]]
        kwargs = {"content": t["text"], "type": kind}
        if t.get("reasoning"):
            kwargs["additional_kwargs"] = {"reasoning_content": t["reasoning"]}
            places[i, "reasoning"] = (at, 0)
        if t.get("calls"):
            kwargs["tool_calls"] = [{"name": k["name"], "args": k["args"], "id": k["id"], "type": "tool_call"} for k in t["calls"]]
            places[i, "args", 0] = (f"{at}.kwargs.tool_calls[0].args", 0)
            places[i, "id", 0] = (f"{at}.kwargs.tool_calls[0].id", 0)
        if t["kind"] == "result":
            kwargs["tool_call_id"] = t["id"]
        messages.append({"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": kwargs})
    tools = [{"type": "function", "function": {"name": t["name"], "description": t["text"], "parameters": t["schema"]}} for t in c["tools"]]
    for n in range(len(tools)):
        places["tool", n], places["tool text", n] = (f"tools[{n}]", 0), (f"tools[{n}].function.description", 0)
    return {"model": c["model"], "messages": messages, "tools": tools, **c["more"]}, places


def wrapped(c):
    """Names that nobody uses, and one more level of objects: what is in `job` is the body."""
    places = {("system",): ("persona.text", 0), ("tools",): ("kit", 0), ("model",): ("brain", 0)}
    log = []
    for i, t in enumerate(c["talk"]):
        at = f"log[{len(log)}]"
        places[i,] = (at, 0)
        entry = {"by": {"user": "customer", "assistant": "agent", "result": "machine"}[t["kind"]], "body": {"t": t["text"]}}
        places[i, "text"] = (f"{at}.body.t", 0)
        if t.get("reasoning"):
            entry["body"]["mull"] = t["reasoning"]
            places[i, "reasoning"] = (at, 0)
        if t.get("calls"):
            entry["orders"] = [{"ref": k["id"], "verb": k["name"], "details": k["args"]} for k in t["calls"]]
            places[i, "args", 0] = (f"{at}.orders[0].details", 0)
            places[i, "id", 0] = (f"{at}.orders[0].ref", 0)
        if t["kind"] == "result":
            entry["ref"] = t["id"]
        log.append(entry)
    kit = [{"verb": t["name"], "help": t["text"], "shape": t["schema"]} for t in c["tools"]]
    for n in range(len(kit)):
        places["tool", n], places["tool text", n] = (f"kit[{n}]", 0), (f"kit[{n}].help", 0)
    return {"v": 2, "job": {"brain": c["model"], "persona": {"text": c["system"]}, "kit": kit, "log": log}, **c["more"]}, places


def legacy(c):
    """OpenAI's old form: functions, one function_call a message."""
    places = {("system",): ("messages[0].content", 0), ("tools",): ("functions", 0), ("model",): ("model", 0)}
    messages = [{"role": "system", "content": c["system"]}]
    for i, t in enumerate(c["talk"]):
        at = f"messages[{len(messages)}]"
        places[i,], places[i, "text"] = (at, 0), (f"{at}.content", 0)
        if t["kind"] == "result":
            messages.append({"role": "function", "name": t["name"], "content": t["text"]})
            continue
        m = {"role": t["kind"], "content": t["text"]}
        if t.get("reasoning"):
            m["reasoning"] = t["reasoning"]
            places[i, "reasoning"] = (at, 0)
        if t.get("calls"):
            k = t["calls"][0]
            m["function_call"] = {"name": k["name"], "arguments": k.get("raw") or json.dumps(k["args"], ensure_ascii=False)}
            places[i, "args", 0] = (f"{at}.function_call.arguments", 0)
        messages.append(m)
    functions = [{"name": t["name"], "description": t["text"], "parameters": t["schema"]} for t in c["tools"]]
    for n in range(len(functions)):
        places["tool", n], places["tool text", n] = (f"functions[{n}]", 0), (f"functions[{n}].description", 0)
    return {"model": c["model"], "messages": messages, "functions": functions, "temperature": 1, **c["more"]}, places


def text_turns(begin, end):
    def make(c):
        places, text = {("model",): ("model", 0)}, ""
        parts = [("system", c["system"], ("system",), None)] + [(t["kind"], t["text"], (i, "text"), t) for i, t in enumerate(c["talk"])]
        for role, body, key, t in parts:
            if t is not None:
                places[key[0],] = ("prompt", len(text))
            text += begin[role]
            places[key] = ("prompt", len(text))
            text += body
            for k in (t or {}).get("calls", ()):
                text += "\n<tool_call>"
                places[key[0], "args", 0] = ("prompt", len(text))
                text += (k.get("raw") or json.dumps(k["args"], ensure_ascii=False)) + "</tool_call>"
            text += end[role]
        return {"model": c["model"], "prompt": text + begin["assistant"], "max_tokens": 99, "stop": ["x"], **c["more"]}, places
    return make


def by(user, assistant, result, system):
    return {"user": user, "assistant": assistant, "result": result, "system": system}


DIALECTS = {
    "chat": chat, "anthropic": anthropic, "responses": responses, "gemini": gemini, "bedrock": bedrock, "renamed": renamed,
    "chatml": text_prompt(lambda role: f"<|im_start|>{role}\n", "<|im_end|>\n"),
    "llama3": text_prompt(lambda role: f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>"),
    "ollama": ollama, "cohere": cohere, "ai sdk": ai_sdk, "langchain": langchain, "wrapped": wrapped, "legacy": legacy,
    "gemma": text_turns(by("<start_of_turn>user\n", "<start_of_turn>model\n", "<start_of_turn>tool\n", "<start_of_turn>system\n"), by(*["<end_of_turn>\n"] * 4)),
    "mistral": text_turns(by("[INST] ", " ", "[TOOL_RESULTS] ", "<s>[INST] <<SYS>>\n"), by(" [/INST]", "</s>", " [/TOOL_RESULTS]", "\n<</SYS>> [/INST]")),
    "human": text_turns(by("\n\nHuman: ", "\n\nAssistant: ", "\n\nFunction: ", ""), by(*[""] * 4)),
    "deepseek": text_turns(by("<｜User｜>", "<｜Assistant｜>", "<｜tool▁output▁begin｜>", "<｜begin▁of▁sentence｜>"), by("", "<｜end▁of▁sentence｜>", "<｜tool▁output▁end｜>", "\n\n")),
}
TEXT = {"chatml", "llama3", "gemma", "mistral", "human", "deepseek"}
# Arguments that are values, not text.
VALUE_CALLS = {"anthropic", "gemini", "bedrock", "renamed", "ollama", "cohere", "ai sdk", "langchain", "wrapped"}
# Without ids of calls, without reasoning, with a model under no known name, with one call a message.
NO_IDS = {"ollama", "cohere", "legacy"} | TEXT
NO_REASONING = {"cohere"} | TEXT
NO_MODEL = {"renamed", "wrapped"}
NO_SETTINGS = {"wrapped"}
