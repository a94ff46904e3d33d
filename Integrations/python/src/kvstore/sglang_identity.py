"""What an SGLang process has loaded that can change a page's bytes: its settings, models, weights and their code."""

from __future__ import annotations

import json
import logging
from typing import Any

import torch

from . import loaded
from .effective import Effective, environment, nonce
from .sglang_left_out import ENVIRONMENT, ENVIRONMENT_LEFT_OUT, HARMLESS_CALLS, LEFT_OUT
from .weights import IdentityUnknownError

logger = logging.getLogger(__name__)


def effective_environment() -> dict[str, str]:
    """The variables of SGLang, also those that a later version declares, and of its libraries, without what is left out."""
    from sglang.srt import environ

    declared = [name for name in dir(getattr(environ, "Envs", None)) if name.isupper()]
    return environment(ENVIRONMENT, ENVIRONMENT_LEFT_OUT, declared)


def effective_configuration(models: list[Any] | None = None, configs: list[Any] | None = None) -> str:
    """SGLang's published settings, the models' configurations, their weights and their code, without what is left out.

    Models and configurations are those that this process has, if none are given.
    """
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.runtime_context import get_context

    settings: dict[str, Any] = {}
    for bag in (getattr(get_context(), "_config_bags", None) or {}).values():
        settings.update(_settings_of(bag))
    if not settings:
        raise IdentityUnknownError("kvstore: this version of SGLang does not tell its settings")
    effective = Effective(LEFT_OUT)
    if models is None or configs is None:
        models, configs = loaded.models_of(), loaded.instances_of(ModelConfig)
    record = {
        "settings": effective.record(settings),
        "models": sorted({effective.text(config) for config in configs}),
        "environment": effective_environment(),
        "numbers": torch.get_float32_matmul_precision(),
        "weights": sorted(loaded.weights_digest([model]).hex() for model in models),
        "code": loaded.code_digests(models),
    }
    if settings.get("lora.enable_lora") or settings.get("lora.lora_paths"):
        logger.warning(
            "kvstore: SGLang does not tell its storage what an adapter holds: pages of this process serve it alone"
        )
        record["process"] = nonce().hex()
    elif effective.unnameable:
        logger.warning(
            "kvstore: what these settings hold cannot be told, so that pages of this process serve it alone: %s",
            ", ".join(sorted(set(effective.unnameable))),
        )
        record["process"] = nonce().hex()
    return json.dumps(record, sort_keys=True)


def _settings_of(bag: Any) -> dict[str, Any]:
    """The settings of a group and of those in it, by their whole names, without those that are left out."""
    if bag._path in LEFT_OUT:
        return {}
    found = {f"{bag._path}.{name}": value for name, value in bag._fields.items()}
    found = {name: value for name, value in found.items() if name not in LEFT_OUT}
    for part in bag._subs.values():
        found.update(_settings_of(part))
    return found


_weight_calls: list[str] = []
_watched: list[type] = []


def watch_weights() -> list[str]:
    """What this process is told to do to its weights from now on: names of calls, all but those known to be harmless."""
    # Where it is gone, SGLang does not start with this backend: better than hits of other weights.
    from sglang.srt.model_executor.model_runner_components.weight_updater import WeightUpdater

    if WeightUpdater not in _watched:
        original = WeightUpdater.__getattribute__

        def fetch(self: Any, name: str) -> Any:
            if name not in HARMLESS_CALLS and not name.startswith("__"):
                _weight_calls.append(name)
            return original(self, name)

        WeightUpdater.__getattribute__ = fetch
        _watched.append(WeightUpdater)
    return _weight_calls
