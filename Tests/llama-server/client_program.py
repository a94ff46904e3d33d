"""Talks to a companion with the openai and anthropic packages; prints what it saw as JSON. Run by the cases in outside.py.

client_program.py URL SYSTEM
"""
import json
import sys

import anthropic
import openai

url, system = sys.argv[1:]
seen = {}
chat = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=2)
talk = [{"role": "system", "content": system}, {"role": "user", "content": "hello"}]
for name in ("first", "again"):
    answer = chat.chat.completions.create(model="any", messages=talk, max_tokens=6, temperature=0)
    seen["chat " + name] = [answer.choices[0].message.content, answer.usage.prompt_tokens_details.cached_tokens]
pieces, usage = [], None
stream = chat.chat.completions.create(
    model="any", messages=talk, max_tokens=6, temperature=0, stream=True, stream_options={"include_usage": True}
)
for event in stream:
    usage = event.usage or usage
    pieces += [choice.delta.content or "" for choice in event.choices]
seen["chat stream"] = ["".join(pieces), usage.prompt_tokens_details.cached_tokens]
raw = chat.chat.completions.with_raw_response.create(model="any", messages=talk, max_tokens=2)
seen["header"] = raw.headers["x-kvstore-prefix"]
for name in ("first", "again"):
    answer = chat.responses.create(model="any", instructions=system + "!", input="hello", max_output_tokens=6, temperature=0)
    seen["responses " + name] = [answer.output_text, answer.usage.input_tokens_details.cached_tokens]
# The package's own collector of streams wants an index that the server does not send.
stream = chat.responses.create(
    model="any", instructions=system + "!", input="hello", max_output_tokens=6, temperature=0, stream=True
)
text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
seen["responses stream"] = text
try:
    chat.chat.completions.create(model="any", messages=[{"role": "user", "content": "x " * 20000}], max_tokens=2)
except openai.APIStatusError as problem:
    seen["too long"] = problem.status_code

hosted = anthropic.Anthropic(base_url=url, api_key="none", max_retries=2)
body = {
    "model": "any",
    "max_tokens": 6,
    "system": [{"type": "text", "text": "?" + system * 2, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [{"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {}}}],
    "temperature": 0,
}
for name in ("first", "again"):
    # The newest package has no field for a temperature.
    more = {key: value for key, value in body.items() if key != "temperature"}
    answer = hosted.messages.create(**more, extra_body={"temperature": 0})
    usage = answer.usage
    seen["messages " + name] = [usage.cache_creation_input_tokens, usage.cache_read_input_tokens, usage.input_tokens]
    seen["hour " + name] = usage.cache_creation.ephemeral_1h_input_tokens
with hosted.messages.stream(**more) as stream:
    "".join(stream.text_stream)
    usage = stream.get_final_message().usage
seen["messages stream"] = [usage.cache_creation_input_tokens, usage.cache_read_input_tokens, usage.input_tokens]
seen["count"] = hosted.messages.count_tokens(
    model="any", system=body["system"], messages=body["messages"], tools=body["tools"]
).input_tokens
print(json.dumps(seen))
