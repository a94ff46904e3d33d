"""What tokens cost, by the list that `kvstore lint` uses."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Prices:
    """A list of prices, as `kvstore lint --print-prices` writes it: of a million tokens of the prompt, by the beginning of a model's
    name. Tokens that a model writes are not in it, and count nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        document = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        self.currency = str(document.get("currency", ""))
        self._models = {
            name: float(price) for provider in document["providers"] for name, price in provider.get("models", {}).items()
        }

    def money(self, model: str, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost; 0 where the model is not in the list."""
        names = [name for name in self._models if model.startswith(name)]
        return self._models[max(names, key=len)] * tokens_in / 1e6 if names else 0.0
