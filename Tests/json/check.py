"""Validates the documents in a folder: check.py FOLDER DOCS."""

import json
import pathlib
import re
import sys

import jsonschema

NAME = re.compile(r"[a-z][a-z0-9_]*")
MOMENT = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z")
# Members in words; objects whose keys are data, and no names of ours.
PROSE = {"found"}
MAPS = {"labels", "models", "formats", "params"}


def documents(text):
    """The documents that a command printed: one, or one a line."""
    try:
        return [json.loads(text, parse_constant=refuse)]
    except json.JSONDecodeError:
        return [json.loads(line, parse_constant=refuse) for line in text.splitlines() if line.startswith("{")]


def refuse(constant):
    raise SystemExit(f"FAIL: {constant} is not JSON")


def broken_rules(value, path=""):
    """What of docs/json.md a value does not keep to."""
    if isinstance(value, list):
        for item in value:
            yield from broken_rules(item, path)
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        here = f"{path}.{name}"
        if not NAME.fullmatch(name):
            yield f"{here}: not in snake_case"
        if re.search(r"_(ns|ms|us|millis\w*|nano\w*|time|timestamp|date|s)$", name):
            yield f"{here}: a time that is no moment (_at) and no length (_seconds)"
        if (name.endswith("_at") or name == "at") and member is not None and not (isinstance(member, str) and MOMENT.fullmatch(member)):
            yield f"{here}: {member!r} is no moment"
        if name.endswith("_seconds") and not isinstance(member, (int, float, list, type(None), dict)):
            yield f"{here}: {member!r} is no number"
        if re.search(r"(^|_)bytes($|_(max|free|used|before|lent))", name) and not isinstance(member, (int, float, list, type(None))):
            yield f"{here}: {member!r} is no number of bytes"
        if isinstance(member, str) and name not in PROSE and re.fullmatch(r"-?(inf(inity)?|nan|none|never|unlimited)", member, re.IGNORECASE):
            yield f"{here}: {member!r} is not null"
        if name not in MAPS:
            yield from broken_rules(member, here)


def main():
    folder, docs = map(pathlib.Path, sys.argv[1:3])
    # Schemas of commands that could not be run here.
    unseen = {f"kvstore/{name}/1" for name in sys.argv[3:]}
    schemas = {}
    for file in sorted((docs / "json").glob("*.json")):
        schema = json.loads(file.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        schemas[f"kvstore/{file.stem}/1"] = jsonschema.Draft202012Validator(schema)
        if schema["$id"] != f"kvstore/{file.stem}/1":
            sys.exit(f"FAIL: {file}: its $id is {schema['$id']}")
    page = (docs / "json.md").read_text()
    seen, count = set(), 0
    for command in sorted(folder.glob("*.command"), key=lambda file: int(file.stem)):
        text = command.read_text().strip()
        found = documents(command.with_suffix(".out").read_text()) + [
            document for document in documents(command.with_suffix(".err").read_text()) if document.get("schema") == "kvstore/error/1"
        ]
        if not found:
            sys.exit(f"FAIL: {text}: no document")
        for document in found:
            if next(iter(document)) != "schema":
                sys.exit(f"FAIL: {text}: the first member is {next(iter(document))}")
            name = document["schema"]
            if name not in schemas:
                sys.exit(f"FAIL: {text}: there is no docs/json for {name}")
            faults = [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in schemas[name].iter_errors(document)]
            faults += broken_rules(document)
            if faults:
                sys.exit(f"FAIL: {text}: {faults[:5]}\n{json.dumps(document)[:2000]}")
            seen.add(name)
            count += 1
    if schemas.keys() - seen - unseen:
        sys.exit(f"FAIL: no command printed {sorted(schemas.keys() - seen - unseen)}")
    for name in schemas:
        if f"](json/{name.split('/')[1]}.json)" not in page:
            sys.exit(f"FAIL: docs/json.md does not name {name}")
    print(f"json: {count} documents of {len(seen)} kinds are as their schemas and docs/json.md say")


main()
