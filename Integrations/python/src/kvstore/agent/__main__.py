"""Looks at agents' runs in a store: python -m kvstore.agent --help."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from .. import KVStoreError, ReadOnlyError, Store
from .carry import export_run, import_run
from .run import Run
from .store import AgentStore


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def _table(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _runs(agents: AgentStore, arguments: argparse.Namespace) -> None:
    found: list[dict[str, Any]] = []
    for record in agents.runs(arguments.user):
        run = agents.existing_run(record.id, user=record.user, session=record.session)
        found.append({
            "run": record.id, "session": record.session, "created": record.created, "origin": record.origin,
            "steps": run.confirmed, "openings": len(run.openings()), "outcomes": _outcomes(run),
        })  # fmt: skip
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    rows = [["run", "session", "made", "opened", "steps", "answered", "done", "failed", "fork of"]]
    for line in found:
        outcomes = line["outcomes"]
        origin = line["origin"]
        rows.append([
            line["run"], line["session"] or "–", _ago(time.time() - line["created"]), f"{line['openings']}×", str(line["steps"]),
            str(sum(outcomes.get(name, 0) for name in ("hit", "recorded", "stale"))), str(outcomes.get("stored", 0)),
            str(outcomes.get("failed", 0)), f"{origin['run']} at {origin['at']}" if origin else "–",
        ])  # fmt: skip
    _table(rows)


def _outcomes(run: Run) -> dict[str, int]:
    counts: dict[str, int] = {}
    for opening in run.openings():
        for event in run.events(opening.index):
            counts[event.outcome] = counts.get(event.outcome, 0) + 1
    return counts


def _run(agents: AgentStore, arguments: argparse.Namespace) -> None:
    run = agents.existing_run(arguments.run, user=arguments.user, session=arguments.session)
    steps = list(run.steps())
    openings = run.openings()
    if arguments.json:
        document = {
            "run": run.id, "session": run.scope.session, "created": run.created, "origin": run.origin,
            "steps": [{
                "number": step.number, "kind": step.kind, "name": step.name, "key": step.key, "stored": step.stored,
                "seconds": step.seconds, "asked": step.asked, "value": _shown(step.value),
            } for step in steps],
            "openings": [{
                "opened": opening.opened, "process": opening.process, "mode": opening.mode,
                "events": [{
                    "time": event.time, "layer": event.layer, "outcome": event.outcome, "name": event.name, "call": event.call,
                    "key": event.key, "version": event.version, "age": event.age, "source": event.source, "reason": event.reason,
                    "asked": event.asked,
                } for event in run.events(opening.index)],
            } for opening in openings],
        }  # fmt: skip
        print(json.dumps(document, ensure_ascii=False))
        return
    now = time.time()
    print(f"run       {run.id}, session {run.scope.session or '–'}, made {_ago(now - run.created)}")
    if run.origin:
        print(f"fork of   {run.origin['run']} at step {run.origin['at']}")
    print(f"opened    {len(openings)} times, last {_ago(now - openings[-1].opened) if openings else 'never'}")
    print()
    rows = [["step", "kind", "name", "took", "stored", "key"]]
    rows += [
        [str(step.number), step.kind, step.name, f"{step.seconds:.3f} s", _ago(now - step.stored), step.key[:16]] for step in steps
    ]
    _table(rows)
    if arguments.log:
        for opening in openings:
            print(f"\nopening {opening.index}, {_ago(now - opening.opened)}, process {opening.process}")
            rows = [["call", "layer", "outcome", "version", "age", "from", "key", "why"]]
            rows += [
                [event.call or event.name, event.layer, event.outcome, event.version or "–",
                 "–" if event.age is None else f"{event.age:.1f} s", event.source or "–", event.key[:16] or "–", event.reason]
                for event in run.events(opening.index)
            ]  # fmt: skip
            _table(rows)


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    return value if isinstance(value, (dict, list, str, int, float, type(None))) else {"array": str(getattr(value, "shape", "?"))}


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kvstore.agent", description="Agents' runs in a store.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("runs", "the runs of a user"),
        ("run", "the steps of a run, and what its calls were answered"),
        ("export", "writes a run into a file"),
        ("import", "puts an exported run into a store"),
        ("purge", "removes all that is a user's"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("store", type=Path)
        if name in ("run", "export"):
            command.add_argument("run")
            command.add_argument("--session")
        if name in ("export", "import"):
            command.add_argument("file", type=Path)
        if name == "run":
            command.add_argument("--log", action="store_true", help="each call, and how it was answered")
        if name in ("runs", "run"):
            command.add_argument("--json", action="store_true")
        command.add_argument("--user", required=name == "purge", help="whose; left out: nobody's in particular")
        command.add_argument("--secret-file", type=Path, help="what the AgentStore was given as its secret")
    arguments = parser.parse_args(words)
    secret = arguments.secret_file.read_bytes() if arguments.secret_file else b""
    try:
        if not arguments.store.is_dir():
            raise LookupError(f"there is no store at {arguments.store}")
        with (
            Store(arguments.store, read_only=arguments.command in ("runs", "run", "export"), host="64MiB") as store,
            AgentStore(store, secret=secret) as agents,
        ):
            if arguments.command == "runs":
                _runs(agents, arguments)
            elif arguments.command == "run":
                _run(agents, arguments)
            elif arguments.command == "export":
                run = agents.existing_run(arguments.run, user=arguments.user, session=arguments.session)
                print(f"{export_run(run, arguments.file)} blocks")
            elif arguments.command == "import":
                print(f"run {import_run(agents, arguments.file, user=arguments.user).id}")
            else:
                print(f"{agents.purge(user=arguments.user)} blocks removed")
    except ReadOnlyError:
        print("kvstore.agent: the store has no records of this user", file=sys.stderr)
        return 1
    except (LookupError, ValueError, OSError, KVStoreError) as error:
        print(f"kvstore.agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
