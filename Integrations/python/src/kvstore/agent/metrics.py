"""What the layers did and saved, counted in this process."""

from __future__ import annotations

import threading
from collections import defaultdict


class Metrics:
    """Counters by layer, name (of a tool, a model, a step) and outcome. Threads share it."""

    NAMES_MAX = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, str], int] = defaultdict(int)
        self._reasons: dict[tuple[str, str, str, str], int] = defaultdict(int)
        self._saved: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])

    def _name(self, layer: str, name: str) -> str:
        # Names come from callers: what is counted must not grow without end.
        if (layer, name) not in self._saved and len(self._saved) >= self.NAMES_MAX:
            return "(others)"
        return name

    def count(self, layer: str, name: str, outcome: str, reason: str = "") -> None:
        """One more of these. reason: why it was not answered from the store, of a few fixed texts."""
        self.add(layer, name, outcome, 1)
        if reason:
            with self._lock:
                self._reasons[layer, self._name(layer, name), outcome, reason] += 1

    def add(self, layer: str, name: str, outcome: str, count: int) -> None:
        """So many more of these."""
        if not count:
            return
        with self._lock:
            name = self._name(layer, name)
            self._saved[layer, name]
            self._counts[layer, name, outcome] += count

    def save(self, layer: str, name: str, *, seconds: float = 0, tokens: float = 0, money: float = 0) -> None:
        """A call that was not made, and what it took when it was."""
        with self._lock:
            saved = self._saved[layer, self._name(layer, name)]
            for index, value in enumerate((1, seconds, tokens, money)):
                saved[index] += value

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Calls by (layer, name, outcome)."""
        with self._lock:
            return dict(self._counts)

    def reasons(self) -> dict[tuple[str, str, str, str], int]:
        """Calls that were not answered, by (layer, name, outcome, reason): expired, evicted, a write under way, by policy …"""
        with self._lock:
            return dict(self._reasons)

    def saved(self) -> dict[tuple[str, str], dict[str, float]]:
        """By (layer, name): calls that were not made, and the seconds, tokens and money they took when they were."""
        with self._lock:
            return {
                key: dict(zip(("calls", "seconds", "tokens", "money"), values, strict=True))
                for key, values in self._saved.items()
                if values[0]
            }

    def text(self) -> str:
        """The counters in Prometheus' text format, version 0.0.4."""
        lines = ["# TYPE kvstore_agent_calls_total counter"]
        for (layer, name, outcome), count in sorted(self.counts().items()):
            lines.append(
                f'kvstore_agent_calls_total{{layer="{_label(layer)}",name="{_label(name)}",outcome="{_label(outcome)}"}} {count}'
            )
        lines.append("# TYPE kvstore_agent_unanswered_total counter")
        for (layer, name, outcome, reason), count in sorted(self.reasons().items()):
            lines.append(
                f'kvstore_agent_unanswered_total{{layer="{_label(layer)}",name="{_label(name)}",outcome="{_label(outcome)}",'
                f'reason="{_label(reason)}"}} {count}'
            )
        saved = sorted(self.saved().items())
        for what in ("calls", "seconds", "tokens", "money"):
            lines.append(f"# TYPE kvstore_agent_saved_{what}_total counter")
            for (layer, name), values in saved:
                lines.append(
                    f'kvstore_agent_saved_{what}_total{{layer="{_label(layer)}",name="{_label(name)}"}} {values[what]:g}'
                )
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
