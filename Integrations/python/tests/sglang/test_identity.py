"""What an SGLang may find of another one: nothing whose own model it would not have computed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine import Engine, environment
from mutate import UNKNOWN, mutations_of, other
from runner import Refused, Runner, is_listed
from tiny_model import write_model
from variables import variables_read, wrong_variables

from kvstore import loaded, sglang
from kvstore.sglang_left_out import ENVIRONMENT_LEFT_OUT, LEFT_OUT

PAGE = 64


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


PROMPT = tokens(1, 700)
STORED = 640


# ---------------------------------------------------------------- every field


def bags(bag: Any) -> Iterator[Any]:
    yield bag
    for part in bag._subs.values():
        yield from bags(part)


def record(published: Any) -> str:
    return sglang.effective_configuration([], [published])


def test_every_setting_is_in_the_identity_or_on_the_list(published: Any) -> None:
    """Each of SGLang's published settings, and one that no version has yet, changes the identity."""
    from sglang.srt.runtime_context import get_context

    before = record(published)
    assert record(published) == before
    changed, listed, wrong = 0, 0, []
    for bag in [part for root in get_context()._config_bags.values() for part in bags(root)]:
        for name in [*bag._fields, UNKNOWN]:
            missing = name not in bag._fields
            value = bag._fields.get(name)
            bag._fields[name] = True if name == "enable_lora" else 1 if missing else other(value)
            try:
                is_changed = record(published) != before
            finally:
                if missing:
                    del bag._fields[name]
                else:
                    bag._fields[name] = value
            whole = f"{bag._path}.{name}"
            changed += is_changed
            listed += is_listed(whole)
            if is_changed == is_listed(whole):
                wrong.append(whole)
    print(f"settings: {changed + listed} mutated, {changed} changed the identity, {listed} are on the list")
    assert not wrong and changed > 300
    assert record(published) == before


def test_every_field_of_the_model_is_in_the_identity_or_on_the_list(published: Any) -> None:
    """What --json-model-override-args and an edited config.json end up in."""
    done = mutations_of(published, LEFT_OUT, lambda: record(published))
    print(
        f"model: {len(done)} mutated, {sum(one['changed'] for one in done)} changed the identity, "
        f"{sum(one['listed'] for one in done)} are on the list"
    )
    assert [one["field"] for one in done if one["changed"] == one["listed"]] == []
    assert len(done) > 80


def test_every_variable_is_in_the_identity_or_on_the_list() -> None:
    """Each variable of the environment that SGLang declares, or that its source reads."""
    from sglang.srt import environ

    declared = {name for name in dir(environ.Envs) if name.isupper()}
    names = variables_read(Path(environ.__file__).parent) | declared | set(ENVIRONMENT_LEFT_OUT)
    assert len(names) > 800 and {"USE_ROCM_AITER_ROPE_BACKEND", "ASCEND_USE_FA"} < names
    assert wrong_variables(names, ENVIRONMENT_LEFT_OUT, sglang.effective_environment) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environ.Envs, "VARIABLE_OF_A_LATER_VERSION", None, raising=False)
        assert wrong_variables(["VARIABLE_OF_A_LATER_VERSION"], (), sglang.effective_environment) == []


@pytest.mark.parametrize(
    ("variable", "counts"), [("SGLANG_VARIABLE_OF_A_LATER_VERSION", True), ("SGLANG_RUN_ID", False)]
)
def test_environment(published: Any, monkeypatch: pytest.MonkeyPatch, variable: str, counts: bool) -> None:
    before = record(published)
    monkeypatch.setenv(variable, "another")
    assert (record(published) != before) == counts


# What two processes say of the same model, whose class inherits from one of transformers', as Gemma's in SGLang does.
RECORD = """
import sys
import torch, transformers
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.runtime_context import get_context
from sglang.srt.server_args import ServerArgs
from kvstore import sglang

class Model(transformers.PreTrainedModel):
    config_class = transformers.LlamaConfig

arguments = ServerArgs(model_path=sys.argv[1], device="cpu", skip_tokenizer_init=True, attention_backend="torch_native")
get_context().set_server_args(arguments)
config = ModelConfig.from_server_args(arguments)
print("@", sglang.effective_configuration([Model(config.hf_config)], [config]))
"""


def test_processes_agree(small_model: Path) -> None:
    """The identity holds nothing that a process makes up, as Python does the hashes of strings."""
    said = []
    for seed in ("1", "2"):
        variables = {**environment(), "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", RECORD, str(small_model)], env=variables, capture_output=True, text=True, check=True
        )
        said.append(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("@ "))[2:]))
    assert "transformers.utils.hub" in said[0]["code"] and "_from_model_config" in said[0]["models"][0]
    assert said[0] == said[1]


def test_a_constant_of_a_models_code(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the one that is on the list is left out."""
    import transformers
    from transformers.utils import hub

    class Model(transformers.PreTrainedModel):
        config_class = transformers.LlamaConfig

    models = [Model(published.hf_config)]
    before = loaded.code_digests(models)
    monkeypatch.setattr(hub, "SESSION_ID", "another")
    assert loaded.code_digests(models) == before
    for name, value in {"SESSION_ID_OF_A_LATER_VERSION": "1", "PushToHubMixin": type("PushToHubMixin", (), {})}.items():
        with monkeypatch.context() as patch:
            patch.setattr(hub, name, value, raising=False)
            assert loaded.code_digests(models) != before, name


@pytest.mark.parametrize("digest", ["", " ", "00", "zz" * 32])
def test_a_digest_that_is_none(published: Any, digest: str) -> None:
    storage = sglang.KVStoreHiCache.__new__(sglang.KVStoreHiCache)
    storage._settings = {"weights_digest": digest}
    with pytest.raises(ValueError, match="32 bytes in hexadecimal"):
        storage._weights_digest()


@pytest.mark.parametrize("pool", ["mamba", "swa", "draft", "indexer", "pool_of_a_later_version"])
def test_pools_beside_kv_are_refused_in_clear_words(published: Any, pool: str) -> None:
    storage = sglang.KVStoreHiCache.__new__(sglang.KVStoreHiCache)
    storage.register_mem_host_pool_v2(SimpleNamespace(), "kv")
    with pytest.raises(ValueError, match=f"kvstore: this model has a cache of kind {pool} beside its KV"):
        storage.register_mem_host_pool_v2(SimpleNamespace(), pool)


# ---------------------------------------------------------------- in the model runner


@pytest.fixture(scope="session")
def runner(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    # It begins surely after the model was written.
    time.sleep(0.3)
    made = Runner(tmp_path_factory.mktemp("runner") / "log")
    yield made
    made.close()


def look(runner: Runner, model: Path, **change: Any) -> dict[str, Any]:
    return runner.call("look", model=str(model), weights="11" * 32, prompt=PROMPT[:200], **change)


@pytest.fixture(scope="session")
def plain(runner: Runner, small_model: Path) -> dict[str, Any]:
    seen = look(runner, small_model)
    assert seen == look(runner, small_model)
    return seen


# Values that a running model can have: the weights still fit.
MODEL_VALUES: dict[str, Any] = {
    "LlamaConfig.rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
    "LlamaConfig.rms_norm_eps": 0.1,
    "argument.json_model_override_args": '{"rms_norm_eps": 0.1}',
}


def mutated(runner: Runner, model: Path, plain: dict[str, Any], field: str, *, most: int) -> dict[str, Any]:
    """What became of a field's other values: of so many with which SGLang computes, or until what it computes changes."""
    done: dict[str, Any] = {"field": field, "started": [], "refused": [], "computed": False, "renamed": False, "near": True}
    ways = [{"value": MODEL_VALUES[field]}] if field in MODEL_VALUES else [{"index": index} for index in range(40)]
    for way in ways:
        try:
            seen = look(runner, model, field=field, **way)
        except Refused as reason:
            if "NoOtherValue" in str(reason):
                break
            done["refused"].append(str(reason)[:200])
            if "no answer" in str(reason) or len(done["refused"]) == 8:
                # It waits for ranks that are not there, and would with every other value.
                break
            continue
        done["started"] += seen["chosen"]
        done["renamed"] = seen["identity"] != plain["identity"]
        done["computed"] = (seen["kv"], seen["logits"]) != (plain["kv"], plain["logits"])
        pairs = zip(seen["highest"], plain["highest"], strict=True)
        done["near"] = seen["tokens"] == plain["tokens"] and all(abs(ours - theirs) < 0.05 for ours, theirs in pairs)
        if done["computed"] or len(done["started"]) == most:
            break
    return done


@pytest.mark.parametrize("field", [*MODEL_VALUES, "ModelConfig.context_len", "argument.max_running_requests"])
def test_a_field_that_changes_kv_changes_the_identity(
    runner: Runner, small_model: Path, plain: dict[str, Any], field: str
) -> None:
    done = mutated(runner, small_model, plain, field, most=1)
    assert done["started"] and done["renamed"] != (field == "argument.max_running_requests")
    assert done["computed"] == (field in MODEL_VALUES)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["model", "argument"])
def test_every_field_in_the_model_runner(
    runner: Runner, small_model: Path, tmp_path: Path, plain: dict[str, Any], kind: str
) -> None:
    """Each argument of a server and each field of the model's configuration changed in turn, and a prompt computed.

    Takes most of an hour. With KVSTORE_MUTATIONS=FOLDER the results are kept there, and a run goes on where another one
    was stopped.
    """
    fields = {
        field: listed
        for field, listed in runner.call("fields", model=str(small_model))
        if field.startswith("argument.") == (kind == "argument")
    }
    results = Path(os.environ.get("KVSTORE_MUTATIONS") or tmp_path) / f"sglang-{kind}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    done = {one["field"]: one for one in map(json.loads, lines)}
    with results.open("a") as file:
        for field, listed in fields.items():
            if field not in done:
                # One that is in the identity changes it with every value; one that is not must not matter with any.
                done[field] = mutated(runner, small_model, plain, field, most=2 if listed else 1)
                file.write(json.dumps(done[field]) + "\n")
                file.flush()
    started = [one for one in done.values() if one["started"]]
    counts = {word: sum(one[word] for one in started) for word in ("computed", "renamed")}
    print(f"{kind}: {len(done)} mutated, {len(started)} started, {counts}, {sum(fields.values())} on the list")
    assert [one for one in started if one["computed"] and not one["renamed"] and not one["near"]] == []
    if kind == "model":
        # One that is not on the list changes the identity; of an argument, SGLang may make nothing.
        assert [one for one in started if not one["renamed"] and not fields[one["field"]]] == []


# ---------------------------------------------------------------- in the engine


def storage(path: Path, model: Path, **more: Any) -> dict[str, Any]:
    """The settings of docs/engines/sglang.md."""
    return {
        "backend_name": "kvstore",
        "module_path": "kvstore.sglang",
        "class_name": "KVStoreHiCache",
        "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": True,
        "path": str(path),
        "disk_bytes": "512MiB",
        "host_bytes": "32MiB",
        "model_path": str(model),
        **more,
    }


def test_a_whole_engine(tmp_path: Path) -> None:
    """After a restart everything is found; with other settings of the model, and after other weights, nothing is."""
    write_model(tmp_path / "one", seed=1)
    write_model(tmp_path / "two", seed=2)
    settings = storage(tmp_path / "store", tmp_path / "one")
    with Engine(tmp_path / "one", settings, tmp_path / "first") as engine:
        assert engine.generate(PROMPT)["cached"] == 0
        first = engine.generate(PROMPT)
        assert first["cached"] == STORED
    with Engine(tmp_path / "one", settings, tmp_path / "second") as engine:
        restored = engine.generate(PROMPT)
        assert (restored["cached"], restored["tokens"]) == (STORED, first["tokens"])
        assert restored["logprobs"] == first["logprobs"]
        engine.update_weights(tmp_path / "two")
        engine.generate(tokens(2, 700))
        assert "may have changed the weights" in engine.said()
    override = '{"rope_theta": 50000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}'
    with Engine(tmp_path / "one", settings, tmp_path / "third", json_model_override_args=override) as engine:
        found = engine.generate(PROMPT)
        assert found["cached"] == 0 and found["tokens"] != first["tokens"]
        # Nothing of the new weights was stored under the name of the old ones, nor of anything else.
        assert engine.generate(tokens(2, 700))["cached"] == 0
