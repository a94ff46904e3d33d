"""The run: which measure of which store comes when, in processes of their own, with the machine's limits between them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import environments, machine
from .measures import BATCH
from .peer import Peer
from .peers import by_name

SCHEMA = "kvstore/peers/1"
SIZES = (288 << 10, 2 << 20)
SCALE_BLOCK_BYTES = 20 << 10
"""Above what kvstore keeps inside its catalog."""
PARTS = ("data", "scale", "faults")
KEPT_FREE_BYTES = 20 << 30
FAULT_BLOCKS = 128
LIMITS_EVERY = 4
"""Stores between two measurements of the machine's limits."""


@dataclass(frozen=True)
class Options:
    peers: tuple[str, ...]
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    total: int
    """Bytes of payload in a round."""
    rounds: int
    scale_blocks: int
    fault_rounds: int
    folder: Path
    """Where stores are made, on the file system to be measured."""
    out: Path
    seed: int
    timeout: float


@dataclass
class Driver:
    options: Options
    say: Callable[[str], None]
    rows: IO[str]
    workers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    done: int = 0
    steps: int = 0
    native: Path = Path()
    asked: subprocess.Popen[str] | None = None

    # ------------------------------------------------------------ processes

    def _worker(self, name: str) -> subprocess.Popen[str]:
        worker = self.workers.get(name)
        if worker is None or worker.poll() is not None:
            there = environments.environment(name)
            variables = there.variables()
            variables["KVSTORE_PEERS_NATIVE"] = str(self.native)
            variables["KVSTORE_PEERS_VALKEY"] = environments.valkey_server() or ""
            worker = subprocess.Popen(
                [str(there.python), "-m", "beside.worker"],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self.options.out / f"{name}.log").open("a"),
                text=True,
            )
            self.workers[name] = worker
        return worker

    def ask(self, environment: str, measure: str, **request: Any) -> dict[str, Any]:
        worker = self.asked = self._worker(environment)
        assert worker.stdin is not None and worker.stdout is not None
        log = str(self.options.out / f"{request.get('peer', measure)}.log")
        worker.stdin.write(
            json.dumps({"measure": measure, "timeout": self.options.timeout, "log": log, **request}) + "\n"
        )
        worker.stdin.flush()
        line = worker.stdout.readline()
        self.asked = None
        if not line:
            return {"error": f"the process for {environment} ended with status {worker.wait()}"}
        return dict(json.loads(line))

    def close(self) -> None:
        for worker in self.workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            if worker is self.asked:
                # It is at a measure whose answer nobody waits for.
                worker.terminate()
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    # ------------------------------------------------------------ rows

    def row(self, measure: str, answer: dict[str, Any], **more: Any) -> dict[str, Any]:
        row = {"schema": SCHEMA, "measure": measure, "load": round(machine.load(), 2), **more, **answer}
        self.rows.write(json.dumps(row) + "\n")
        self.rows.flush()
        return row

    def step(self, text: str, answer: dict[str, Any]) -> None:
        self.done += 1
        result = answer.get("error") or answer.get("missing") or "done"
        self.say(f"{self.done:4d}/{self.steps} {text}: {result}")

    # ------------------------------------------------------------ parts

    def present(self) -> list[type[Peer]]:
        """Those that can run here; of the others a row says why."""
        found = []
        for name in self.options.peers:
            kind = by_name(name)
            there = environments.environment(kind.environment)
            if there.is_there:
                answer = self.ask(kind.environment, "prepare", peer=name)
            else:
                answer = {"missing": f"its environment could not be set up: see {self.options.out / 'setup.log'}"}
            reason = answer.get("missing") or answer.get("error")
            if reason:
                self.row("missing", {"reason": reason}, peer=name)
                self.say(f"{kind.title}: not here: {reason}")
            else:
                found.append(kind)
        return found

    def run(self) -> None:
        kinds = self.present()
        data = [kind for kind in kinds if kind.holds_data]
        scale = [kind for kind in kinds if kind.scale]
        lasting = [kind for kind in data if kind.persistent]
        killed = [kind for kind in data if kind.persistent or kind.on_disk]
        options = self.options
        self.steps = ("data" in options.parts) * len(data) * options.rounds * len(options.sizes)
        self.steps += ("scale" in options.parts) * len(scale)
        self.steps += ("faults" in options.parts) * (len(lasting) + len(killed)) * options.fault_rounds
        order = random.Random(options.seed)
        for round_number in range(options.rounds if "data" in options.parts else 0):
            for size in options.sizes:
                order.shuffle(data)
                for index, kind in enumerate(data):
                    if index % LIMITS_EVERY == 0:
                        self.limits(size, round_number)
                    self.data(kind, size, round_number)
                self.limits(size, round_number)
        for kind in scale if "scale" in options.parts else ():
            self.scale(kind)
        for round_number in range(options.fault_rounds if "faults" in options.parts else 0):
            for kind in killed:
                self.kill(kind, round_number)
            for kind in lasting:
                self.flip(kind, round_number)

    def _folder(self, name: str) -> Path:
        folder = self.options.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def limits(self, size: int, round_number: int) -> None:
        folder = self._folder("limits")
        base = {"block_bytes": size, "blocks": _count(self.options.total, size)}
        answer = self.ask("stores", "limits", folder=str(folder), seed=self.options.seed, **base)
        self.row("limits", answer, round=round_number, **base)
        shutil.rmtree(folder, ignore_errors=True)

    def data(self, kind: type[Peer], size: int, round_number: int) -> None:
        folder = self._folder(kind.name)
        base = {"peer": kind.name, "block_bytes": size, "blocks": _count(self.options.total, size)}
        request = {**base, "folder": str(folder), "seed": self.options.seed + round_number}
        answer = self.ask(kind.environment, "put", **request)
        self.row("put", answer, round=round_number, **base)
        if "error" not in answer and kind.persistent:
            answer = self.ask(kind.environment, "get", **request)
            self.row("get", answer, round=round_number, **base)
        self.step(f"round {round_number + 1}, {size >> 10} KiB, {kind.title}", answer)
        shutil.rmtree(folder, ignore_errors=True)

    def scale(self, kind: type[Peer]) -> None:
        folder = self._folder(kind.name)
        base = {"peer": kind.name, "block_bytes": SCALE_BLOCK_BYTES, "blocks": self.options.scale_blocks}
        request = {**base, "folder": str(folder), "seed": self.options.seed}
        answer = self.ask(kind.environment, "fill", **request)
        self.row("fill", answer, scale=self.options.scale_blocks, **base)
        for round_number in range(self.options.rounds if kind.persistent and "error" not in answer else 0):
            answer = self.ask(kind.environment, "first_hit", **request)
            self.row("first_hit", answer, round=round_number, scale=self.options.scale_blocks, **base)
        self.step(f"{self.options.scale_blocks} blocks, {kind.title}", answer)
        # Removing tens of thousands of files takes minutes, and would be in the next store's way.
        if shutil.disk_usage(folder).free < KEPT_FREE_BYTES:
            shutil.rmtree(folder, ignore_errors=True)

    def kill(self, kind: type[Peer], round_number: int) -> None:
        """kill -9 in the middle of a put; then everything is asked for."""
        size = SIZES[0]
        folder, count = self._folder(kind.name), FAULT_BLOCKS
        base = {"peer": kind.name, "block_bytes": size, "blocks": count, "round": round_number}
        request = {**base, "folder": str(folder), "seed": self.options.seed + round_number}
        chance = random.Random(f"{kind.name} {round_number}")
        answer = self.ask(
            kind.environment,
            "write_until_killed",
            kill_after=chance.randrange(count // 4, count * 3 // 4),
            kill_delay=chance.random() * 0.01,
            **request,
        )
        if "error" not in answer:
            answer = self.ask(kind.environment, "check", acknowledged=answer["acknowledged"], **request)
        self.row("kill", answer, **base)
        self.step(f"kill -9, {kind.title}", answer)
        shutil.rmtree(folder, ignore_errors=True)

    def flip(self, kind: type[Peer], round_number: int) -> None:
        """One bit of a stored block is flipped while no process has the store open."""
        size, count = SIZES[0], FAULT_BLOCKS
        folder, damaged = self._folder(kind.name), random.Random(round_number).randrange(count // 2, count)
        base = {"peer": kind.name, "block_bytes": size, "blocks": count, "round": round_number}
        request = {**base, "folder": str(folder), "seed": self.options.seed + round_number, "damaged": damaged}
        answer = self.ask(kind.environment, "put", **request)
        if "error" not in answer:
            flipped = self.ask("stores", "flip", **request)
            answer = self.ask(kind.environment, "check", **request)
            answer["places"] = flipped.get("places", 0)
        self.row("flip", answer, **base)
        self.step(f"flipped bit, {kind.title}", answer)
        shutil.rmtree(folder, ignore_errors=True)


def _count(total: int, size: int) -> int:
    """Whole batches: Mooncake keeps what fills no bucket of its in memory."""
    return max(total // size // BATCH, 1) * BATCH


def needed(peers: Sequence[str]) -> set[str]:
    return {by_name(name).environment for name in peers} | {"stores"}


def measure(options: Options, sets_up: bool, say: Callable[[str], None]) -> Path:
    """Sets up, measures, and returns the file of rows."""
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "setup.log"
    if sets_up:
        environments.set_up(needed(options.peers), log, say)
    work = options.folder / f"kvstore-peers-{time.time_ns()}"
    work.mkdir(parents=True)
    rows = options.out / "rows.jsonl"
    try:
        native = options.out / "native"
        environments.compile_native(native, log)
        with rows.open("a") as file:
            chosen = Options(**{**options.__dict__, "folder": work})
            driver = Driver(chosen, say, file, native=native.resolve())
            environment = {**machine.describe(work), **environments.versions(), "commit": commit()}
            described = {key: value for key, value in options.__dict__.items() if key not in ("folder", "out")}
            driver.row("environment", {"environment": environment, "options": described}, time=time.strftime("%F %R"))
            try:
                driver.run()
            finally:
                driver.close()
                driver.row("end", {}, time=time.strftime("%F %R"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(options.out / "native", ignore_errors=True)
    return rows


def commit() -> str:
    answer = subprocess.run(
        ["git", "-C", str(environments.ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
