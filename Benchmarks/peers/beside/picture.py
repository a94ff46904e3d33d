"""The picture for the README: bars of the stores that keep blocks on disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

from . import report
from .peers import PEERS

WIDTH, LEFT, BAR, GAP = 860, 250, 16, 6
PANELS = 3
SPACE = (WIDTH - LEFT - 20) // PANELS
BARS = SPACE - 74

STYLE = (
    'text { font: 13px "DejaVu Sans", Verdana, sans-serif; fill: #1f2328; } .b { font-weight: bold; } '
    ".s { font-size: 12px; fill: #59636e; } .own { fill: #54aeff; } .med { fill: #d4a72c; } .soft { fill: #d8dee4; } "
    ".limit { stroke: #59636e; stroke-dasharray: 3 3; }"
)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(found: Sequence[report.Row]) -> str:
    rows = report.Rows(found)
    if not rows.sizes:
        return ""
    size = rows.sizes[0]
    peers = [peer for peer in PEERS if peer.persistent and peer.holds_data and rows.of("put", peer.name, size)]
    columns: list[tuple[str, dict[str, float], float | None, bool]] = []
    put = {peer.name: statistics.median(report.speeds(rows.of("put", peer.name, size), "on_disk_seconds")) for peer in peers}
    cold = {peer.name: report.gets(rows, peer, size)[0] for peer in peers}
    read = {name: statistics.median(report.speeds(one)) for name, one in cold.items() if one and one[0]["read_bytes"]}
    lookups = {}
    for peer in peers:
        times = [row["lookups"]["131072"]["warm"] for row in rows.of("first_hit", peer.name) if "lookups" in row]
        if times:
            lookups[peer.name] = statistics.median(times)
    limit = {name: statistics.median(rows.limit(name, size) or [0.0]) for name in ("raw_write", "raw_read")}
    columns.append(("put until on disk, GB/s", put, limit["raw_write"] or None, False))
    columns.append(("cold get, GB/s", read, limit["raw_read"] or None, False))
    columns.append(("look-up of 131,072 tokens", lookups, None, True))
    top, step = 74, BAR + GAP
    height = top + len(peers) * step + 66
    name = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
    title = f"Beside other stores: blocks of {name}, every byte compared"
    lines = [_text(20, 30, title, "b")]
    for index, peer in enumerate(peers):
        own = peer.name == "kvstore"
        lines.append(_text(LEFT - 12, top + index * step + 13, peer.title, "b" if own else "", "end"))
    for column, (heading, values, line, is_time) in enumerate(columns):
        left = LEFT + column * SPACE
        lines.append(_text(left, 58, heading, "s"))
        if not values:
            continue
        if is_time:
            # Three decades and more: a logarithmic axis, which starts a third below the shortest.
            low = math.log10(min(values.values()) / 3)
            scale = BARS / (math.log10(max(values.values())) - low)
        else:
            low, scale = 0.0, BARS / max([*values.values(), line or 0.0])
        for index, peer in enumerate(peers):
            y = top + index * step
            value = values.get(peer.name)
            if value is None:
                lines.append(_text(left, y + 13, report.NOTHING, "s"))
                continue
            width = max(1.5, ((math.log10(value) if is_time else value) - low) * scale)
            kind = "own" if peer.name == "kvstore" else "med" if peer.durability.startswith("synced") else "soft"
            lines.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="{BAR}"/>')
            words = report.duration(value) if is_time else report.gigabytes(value)
            lines.append(_text(left + width + 5, y + 13, words, "b" if peer.name == "kvstore" else ""))
        if line:
            x = left + line * scale
            end = top + len(peers) * step - GAP
            lines.append(f'<line class="limit" x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{end}"/>')
    y = top + len(peers) * step + 16
    for x, kind, words in ((20, "med", "durable when it says done"), (230, "soft", "not synced by the store"), (420, "", "")):
        if kind:
            lines.append(f'<rect class="{kind}" x="{x}" y="{y - 11}" width="14" height="12"/>')
            lines.append(_text(x + 22, y, words, "s"))
    lines.append(_text(430, y, "dashed: raw O_DIRECT; the time axis is logarithmic", "s"))
    environment = next(row for row in found if row["measure"] == "environment")
    loads = [row["load"] for row in found if row["measure"] in ("put", "get")]
    rounds = len({row.get("round") for row in found if row["measure"] == "put"})
    day = str(environment["time"]).split(" ")[0]
    cores = str(environment["environment"]["cpu"]).rpartition(", ")[2]
    words = f"{cores}, load {min(loads):.1f} to {max(loads):.1f}, median of {rounds} rounds, {day}. Benchmarks/peers/run"
    lines.append(_text(20, y + 26, words, "s"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )
