"""Rows of a run, or of several that were written into one file, as tables: medians, with (largest − smallest) ÷ median."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .peer import Peer
from .peers import PEERS

Row = dict[str, Any]
NOTHING = "–"
LIMITS = (("memcpy", "memcpy"), ("raw_write", "raw O_DIRECT write, synced"), ("raw_read", "raw O_DIRECT read"))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Rows:
    """The rows of a file, by what they are about."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.all = rows
        self.sizes = sorted({row["block_bytes"] for row in rows if row["measure"] == "put"})

    def of(self, measure: str, peer: str, size: int | None = None) -> list[Row]:
        """Those that measured something."""
        return [
            row
            for row in self.all
            if row["measure"] == measure
            and row.get("peer") == peer
            and (size is None or row["block_bytes"] == size)
            and "error" not in row
        ]

    def limit(self, name: str, size: int) -> list[float]:
        """Bytes a second."""
        return [
            row["block_bytes"] * row["blocks"] / row[name]["seconds"]
            for row in self.all
            if row["measure"] == "limits" and row["block_bytes"] == size and name in row
        ]

    def errors(self, peer: str) -> list[str]:
        return sorted({f"{row['measure']}: {row['error']}" for row in self.all if row.get("peer") == peer and "error" in row})

    def missing(self, peer: str) -> str | None:
        return next((row["reason"] for row in self.all if row["measure"] == "missing" and row["peer"] == peer), None)


def gets(rows: Rows, peer: type[Peer], size: int) -> tuple[list[Row], list[Row]]:
    """The cold ones and, one of each process, the median of the warm ones."""
    holders = rows.of("get" if peer.persistent else "put", peer.name, size)
    cold = [{**row["cold"], "block_bytes": size} for row in holders if "cold" in row]
    warm = [sorted(row["warm"], key=lambda one: float(one["seconds"]))[len(row["warm"]) // 2] for row in holders]
    return cold, [{**row, "block_bytes": size} for row in warm]


def _speed(row: Row, field: str = "seconds") -> float:
    return float(row["blocks"] * row["block_bytes"] / row[field])


def speeds(rows: Iterable[Row], field: str = "seconds") -> list[float]:
    return [_speed(row, field) for row in rows]


def spread(values: Sequence[float]) -> str:
    if len(values) < 2 or not statistics.median(values):
        return ""
    return f" ({(max(values) - min(values)) / statistics.median(values) * 100:.0f} %)"


def figure(values: Sequence[float], write: Callable[[float], str]) -> str:
    return write(statistics.median(values)) + spread(values) if values else NOTHING


def gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f}" if value < 9.95e9 else f"{value / 1e9:.1f}"


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def amount(value: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


# ---------------------------------------------------------------- tables


def _data(rows: Rows, size: int) -> str:
    lines: list[list[str]] = []
    for peer in PEERS:
        puts = rows.of("put", peer.name, size)
        if not puts or not peer.holds_data:
            continue
        cold, warm = gets(rows, peer, size)
        holders = [*puts, *rows.of("get", peer.name, size)]
        checked = [one for row in holders for one in (*row.get("warm", ()), *([row["cold"]] if "cold" in row else ()))]
        right, wanted = sum(one["right"] for one in checked), sum(one["blocks"] for one in checked)

        def share(found: Sequence[Row], field: str) -> str:
            return figure([row[field] / row["blocks"] / size for row in found], lambda value: f"{value:.2f}")

        def cpu(found: Sequence[Row]) -> str:
            values = [row["cpu_seconds"] / row["blocks"] / size * 1e9 for row in found]
            return f"{statistics.median(values):.2f}" if values else NOTHING

        on_disk = figure(speeds(puts, "on_disk_seconds"), gigabytes) if peer.persistent or puts[0]["allocated_bytes"] else NOTHING
        lines.append(
            [
                peer.title,
                peer.durability,
                figure(speeds(puts), gigabytes),
                on_disk,
                figure(speeds(cold), gigabytes) if not cold or cold[0]["read_bytes"] else "read at its start",
                figure(speeds(warm), gigabytes),
                f"{cpu(puts)} / {cpu(cold)} / {cpu(warm)}",
                share(puts, "written_bytes").split(" ")[0],
                share(puts, "allocated_bytes").split(" ")[0],
                share(cold, "read_bytes").split(" ")[0] + " / " + share(warm, "read_bytes").split(" ")[0],
                f"{right} of {wanted}",
            ]
        )
    limits = ", ".join(f"{title} {figure(rows.limit(name, size), gigabytes)}" for name, title in LIMITS)
    header = ["store", "safe when it says done", "put", "put, on disk", "cold get", "warm get", "CPU s/GB: put / cold / warm"]
    header += ["written ÷ payload", "disk ÷ payload", "read ÷ payload: cold / warm", "verified"]
    name = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
    return f"## Blocks of {name}\n\nGB/s. Limits of the same run, best of 1, 2 and 4 threads: {limits}.\n\n{table(header, lines)}"


def _scales(found: Sequence[Row]) -> list[str]:
    """A table for each number of blocks."""
    kinds = ("fill", "first_hit")
    counts = {row["scale"] for row in found if row["measure"] == "fill" and "error" not in row}
    return [_scale(Rows([row for row in found if row["measure"] in kinds and row["scale"] == count])) for count in sorted(counts)]


def _scale(rows: Rows) -> str:
    fills = [row for row in rows.all if row["measure"] == "fill" and "error" not in row]
    lines: list[list[str]] = []
    for peer in PEERS:
        mine = rows.of("fill", peer.name)
        if not mine:
            continue
        opened = rows.of("first_hit", peer.name)
        found = [row for row in opened if row["right"]]
        lookups = [row["lookups"] for row in (found if peer.persistent else mine) if "lookups" in row]

        def times(count: str, which: str, lookups: list[Row] = lookups) -> str:
            return figure([one[count][which] for one in lookups], duration)

        tokens = sorted({one["32000"]["found"] for one in lookups} | {one["131072"]["found"] for one in lookups})
        if found:
            first = figure([row["seconds"] for row in found], duration)
        else:
            first = "not found" if opened else "memory only"
            if not peer.persistent and mine[0]["allocated_bytes"]:
                first = "finds nothing again"
        lines.append(
            [
                peer.title,
                first,
                figure([row["read_bytes"] for row in found], amount).split(" (")[0],
                times("32000", "warm"),
                times("131072", "warm"),
                times("131072", "first"),
                f"{peer.tokens_per_block}",
                ", ".join(f"{count:,}" for count in tokens) or NOTHING,
            ]
        )
    header = ["store", "open to first hit", "read until then", "look-up, 32,000 tokens", "131,072 tokens"]
    header += ["131,072 tokens, first time", "tokens a key", "tokens found"]
    count, size = fills[0]["blocks"], fills[0]["block_bytes"]
    return (
        f"## {count:,} blocks of {size >> 10} KiB\n\n"
        "Opening is with the page cache dropped; a look-up contains hashing, and is the median of 14 but for the first one "
        f"after the opening.\n\n{table(header, lines)}"
    )


def _faults(rows: Rows) -> str:
    lines: list[list[str]] = []
    for peer in PEERS:
        kills, flips = rows.of("kill", peer.name), [row for row in rows.of("flip", peer.name) if row["places"]]
        if not kills and not flips:
            continue
        acknowledged = sum(row["acknowledged"] for row in kills)
        kept = sum(row["acknowledged_right"] for row in kills)
        wrong = sum(row["wrong"] for row in kills)
        returned = sum(row["damaged_block"] == "returned" for row in flips)
        lost = sum(row["missed"] - (row["damaged_block"] == "missed") for row in flips)
        lines.append(
            [
                peer.title,
                f"{kept} of {acknowledged}" if kills else NOTHING,
                f"{acknowledged - kept}" if kills else NOTHING,
                f"{wrong}" if kills else NOTHING,
                f"{len(flips) - returned} of {len(flips)}" if flips else NOTHING,
                f"{returned} of {len(flips)}" if flips else NOTHING,
                f"{lost}" if flips else NOTHING,
            ]
        )
    if not lines:
        return ""
    header = ["store", "kill -9: found again", "lost", "wrong", "flipped bit: caught", "returned as a hit", "others missed"]
    return (
        "## Faults\n\n`kill -9` of the engine and the store's servers in the middle of a put: blocks of which the store had said "
        "done. The page cache survives this, so it says nothing of a power loss. Then one bit of a stored block is flipped; "
        f"kvstore then also misses the blocks behind it in the same prompt, which nobody could use.\n\n{table(header, lines)}"
    )


def _notes(rows: Rows) -> str:
    asked = {name for row in rows.all if row["measure"] == "environment" for name in row["options"]["peers"]}
    lines = []
    for peer in PEERS:
        if peer.name not in asked:
            continue
        missing = rows.missing(peer.name)
        if missing:
            lines.append(f"- **{peer.title}**: not measured: {missing}")
        elif peer.note:
            lines.append(f"- {peer.title}: {peer.note}.")
        lines += [f"- **{peer.title}**: {error}" for error in rows.errors(peer.name)]
    return "## Notes\n\n" + "\n".join(lines) + "\n" if lines else ""


def markdown(found: Sequence[Row]) -> str:
    rows = Rows(found)
    environment = next(row for row in found if row["measure"] == "environment")
    loads = [row["load"] for row in found if row["measure"] in ("put", "get", "fill", "first_hit")]
    described = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in environment["environment"].items())
    parts = [
        "# Beside other stores\n",
        f"{environment['time']}: {described}."
        + (f" Load while it ran: {min(loads):.1f} to {max(loads):.1f}." if loads else "")
        + " Median of the rounds, (largest − smallest) ÷ median in brackets.\n",
        *(_data(rows, size) for size in rows.sizes),
        *_scales(found),
        _faults(rows),
        _notes(rows),
    ]
    return "\n".join(part for part in parts if part)
