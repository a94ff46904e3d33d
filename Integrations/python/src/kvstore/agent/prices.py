"""What tokens cost, by the list that `kvstore lint` uses."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Prices:
    """A list of prices, as `kvstore lint --print-prices` writes it: of a million tokens of the prompt, and of the answer where it says
    so, by the beginning of a model's name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        document = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        self.currency = str(document.get("currency", ""))
        # Of each model: the price of a token of the prompt, of one that was cached, of one that was not, of one that was written.
        self._models: dict[str, tuple[float, float, float, float]] = {}
        for provider in document["providers"]:
            outputs = provider.get("outputs", {})
            for name, price in provider.get("models", {}).items():
                read, write = float(provider.get("read", 1)), float(provider.get("write", 1))
                self._models[name] = (float(price), float(price) * read, float(price) * write, float(outputs.get(name, 0)))

    def money(self, model: str, tokens_in: int, tokens_out: int, *, tokens_cached: int | None = None) -> float:
        """What so many tokens cost; 0 where the model is not in the list, or the price of what it writes.

        tokens_cached: so many of those of the prompt were found in the provider's cache, and the others are written to it; None: without
        a cache.
        """
        names = [name for name in self._models if model.startswith(name)]
        if not names:
            return 0.0
        plain, read, write, output = self._models[max(names, key=len)]
        prompt = plain * tokens_in if tokens_cached is None else read * tokens_cached + write * (tokens_in - tokens_cached)
        return (prompt + output * tokens_out) / 1e6
