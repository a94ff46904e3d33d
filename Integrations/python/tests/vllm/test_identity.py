"""What an engine may find of another one: nothing whose own model it would not have computed.

Each engine here is a real one, of a small model. "The truth" is what the same engine gives without a store.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from host import Host, Refused
from tiny_model import write_adapter, write_longrope_model, write_model
from variables import is_elsewhere, variables_read, wrong_variables

BLOCK = 128


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


PROMPT = tokens(1, 3 * BLOCK + 16)
STORED = 3 * BLOCK


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "disk_bytes": "512MiB", "host_bytes": "32MiB", **more}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "one", seed=1)
    write_model(folder / "two", seed=2)
    write_model(folder / "replaced", seed=1)
    write_longrope_model(folder / "longrope", seed=1)
    return folder


@pytest.fixture(scope="session")
def model(models: Path) -> Path:
    return models / "one"


@pytest.fixture(scope="session")
def host(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    # It begins surely after the models were written: what is changed later on cannot be told.
    time.sleep(0.3)
    made = Host(tmp_path_factory.mktemp("host") / "log")
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> dict[str, Any]:
    return settings(tmp_path / "store")


def run(host: Host, model: Path, store: dict[str, Any] | None, *prompts: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The answers of one engine; without prompts, to the usual one."""
    with host.engine(model, store, **more):
        return [host.generate(PROMPT, **prompt) for prompt in prompts or ({},)]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


# ---------------------------------------------------------------- every field

CONFIGURATIONS = {
    "plain": {},
    "adapters": {"enable_lora": True, "max_lora_rank": 16},
    "fp8": {"kv_cache_dtype": "fp8"},
    "ngram": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}},
    "draft": {"speculative_config": {"method": "draft_model", "model": "MODEL", "num_speculative_tokens": 3}},
    "overrides": {"hf_overrides": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}},
}


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
def test_every_field_is_in_the_identity_or_on_the_list(host: Host, model: Path, name: str) -> None:
    """Each field of each object of vLLM's configuration, and one that no version has yet, changes the identity."""
    options = json.loads(json.dumps(CONFIGURATIONS[name]).replace("MODEL", str(model)))
    done = host.call("mutate", model=str(model), options=options)
    changed = [one["field"] for one in done if one["changed"]]
    listed = [one["field"] for one in done if one["listed"]]
    print(f"{name}: {len(done)} fields mutated, {len(changed)} changed the identity, {len(listed)} are on the list")
    assert len(done) > 400
    wrong = [one["field"] for one in done if one["changed"] == one["listed"]]
    # Another way of drafting is one that may have KV.
    assert set(wrong) <= ({"SpeculativeConfig.method"} if name == "ngram" else set())


def test_every_variable_is_in_the_identity_or_on_the_list() -> None:
    """Each variable of the environment that vLLM declares, or that its source reads."""
    import vllm
    from vllm import envs

    from kvstore.vllm.identity import effective_environment
    from kvstore.vllm.left_out import ENVIRONMENT_LEFT_OUT

    names = variables_read(Path(vllm.__file__).parent) | set(envs.environment_variables) | set(ENVIRONMENT_LEFT_OUT)
    assert len(names) > 400 and {"FLA_TRIL_PRECISION", "VLLM_KV_CACHE_LAYOUT", "CUDA_VISIBLE_DEVICES"} < names
    assert wrong_variables(names, ENVIRONMENT_LEFT_OUT, effective_environment) == []
    later = {**envs.environment_variables, "VARIABLE_OF_A_LATER_VERSION": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envs, "environment_variables", later)
        assert wrong_variables(later, ENVIRONMENT_LEFT_OUT, effective_environment) == []


# ---------------------------------------------------------------- in the engine


@dataclass
class Seen:
    """What an engine gave, without finding anything."""

    identity: str
    answer: dict[str, Any]
    kv: str
    chosen: dict[str, str]
    kept: bool

    def is_as(self, other: Seen) -> bool:
        return (self.kv, self.answer) == (other.kv, other.answer)


@pytest.fixture(scope="session")
def forks(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Each engine that is started here has a process of its own."""
    time.sleep(0.3)
    made = Host(tmp_path_factory.mktemp("forks") / "log", fork=True)
    yield made
    made.close()


def look(forks: Any, model: Path, folder: Path, **more: Any) -> Seen:
    empty = Path(tempfile.mkdtemp(dir=folder))
    try:
        return Seen(**forks.call("look", model=str(model), store=settings(empty, offload="none"), prompt=PROMPT, **more))
    finally:
        shutil.rmtree(empty)


@pytest.fixture(scope="session")
def plain(forks: Host, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    seen = look(forks, model, tmp_path_factory.mktemp("plain"))
    assert seen == look(forks, model, tmp_path_factory.mktemp("again"))
    return seen


# Values of the model's configuration that a running model can have: the weights still fit.
MODEL_VALUES: dict[str, Any] = {
    "LlamaConfig.rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
    "LlamaConfig.rms_norm_eps": 0.1,
    "LlamaConfig.max_position_embeddings": 4096,
}


def mutated(
    forks: Any,
    model: Path,
    folder: Path,
    options: dict[str, Any],
    plain: Seen,
    field: str,
    *,
    most: int,
    ways: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What became of a field's other values: of so many with which an engine starts, or until what it computes changes."""
    done: dict[str, Any] = {"field": field, "started": [], "refused": [], "computed": False, "renamed": False, "near": True}
    if field in MODEL_VALUES:
        ways = [{"fields": {field: MODEL_VALUES[field]}}]
    for way in ways or [{"mutated": {field: index}} for index in range(10)]:
        try:
            seen = look(forks, model, folder, options=options, **way)
        except Refused as reason:
            if "NoOtherValue" in str(reason):
                break
            done["refused"].append(str(reason)[:200])
            if "no answer" in str(reason):
                # It waits for ranks that are not there, and would with every other value.
                break
            continue
        done["started"].append(seen.chosen.get(field) or repr(way))
        done["renamed"] = seen.identity != plain.identity
        done["kept"] = seen.kept
        done["near"] = near(seen.answer, plain.answer)
        # Not the log-probabilities: what is told of them is a setting as well.
        done["computed"] = (seen.kv, seen.answer["tokens"]) != (plain.kv, plain.answer["tokens"])
        if done["computed"] or len(done["started"]) == most:
            break
    return done


@pytest.mark.parametrize("field", [*MODEL_VALUES, "ModelConfig.max_model_len", "SchedulerConfig.max_num_batched_tokens"])
def test_a_field_that_changes_kv_changes_the_identity(
    forks: Host, model: Path, tmp_path: Path, plain: Seen, field: str
) -> None:
    from kvstore.vllm.left_out import LEFT_OUT

    done = mutated(forks, model, tmp_path, {}, plain, field, most=1)
    assert done["started"] and done["renamed"] != (field in LEFT_OUT)
    # All but limits of the model change what it computes here.
    assert done["computed"] == (field in MODEL_VALUES and "max_position" not in field)


def test_compiled_kernels_compute_something_else(forks: Host, model: Path, tmp_path: Path, plain: Seen) -> None:
    """What is compiled as a whole rounds elsewhere: the first token's logits are others already."""
    compiled = look(forks, model, tmp_path, mutated={"CompilationConfig.mode": 1})
    assert compiled.chosen == {"CompilationConfig.mode": "<CompilationMode.DYNAMO_TRACE_ONCE: 2>"}
    assert not compiled.is_as(plain) and compiled.identity != plain.identity
    assert compiled == look(forks, model, tmp_path, mutated={"CompilationConfig.mode": 1})


OF_THE_CACHE = re.compile(r"^CacheConfig\.|^AttentionConfig\.|\..*(quant|kv_|scale|dtype|fp8|attention)")


@pytest.mark.long
@pytest.mark.parametrize("name", ["plain", "adapters", "fp8", "draft"])
def test_every_field_in_the_engine(forks: Host, model: Path, tmp_path: Path, name: str) -> None:
    """Each field of each object of vLLM's configuration changed in turn, in an engine that is started with it.

    Takes most of an hour for "plain"; of the others the fields that this one does not have are changed. With
    KVSTORE_MUTATIONS=FOLDER the results are kept there, and a run goes on where another one was stopped.
    """
    options = json.loads(json.dumps(CONFIGURATIONS[name]).replace("MODEL", str(model)))
    fields = dict(forks.call("fields", model=str(model), options=options))
    if name not in ("plain", "fp8"):
        for field, _ in forks.call("fields", model=str(model), options={}):
            fields.pop(field, None)
    if name == "fp8":
        # The same fields as "plain": those are changed again that have to do with a cache and how it is quantised.
        fields = {field: listed for field, listed in fields.items() if OF_THE_CACHE.search(field)}
    results = Path(os.environ.get("KVSTORE_MUTATIONS") or tmp_path) / f"vllm-{name}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    done = {one["field"]: one for one in map(json.loads, lines)}
    plain = look(forks, model, tmp_path, options=options)
    assert plain == look(forks, model, tmp_path, options=options)
    with results.open("a") as file:
        for field, listed in fields.items():
            if field not in done:
                # One that is in the identity changes it with every value; one that is not must not matter with any.
                done[field] = mutated(forks, model, tmp_path, options, plain, field, most=2 if listed else 1)
                file.write(json.dumps(done[field]) + "\n")
                file.flush()
    started = [one for one in done.values() if one["started"]]
    counts = {word: sum(one[word] for one in started) for word in ("computed", "renamed")}
    print(f"{name}: {len(done)} mutated, {len(started)} started, {counts}, {sum(fields.values())} on the list")
    # What is on the list changes nothing, but for the last bits where other tokens are computed together.
    assert [one for one in started if one["computed"] and not one["renamed"] and not one["near"]] == []
    assert [one for one in started if one["renamed"] and fields[one["field"]]] == []
    # What is not on the list is in the identity, unless the engine has set it back.
    assert [one for one in started if not one["renamed"] and not fields[one["field"]] and one["kept"]] == []


class Afresh:
    """Each call in a process that has imported nothing: for variables that are read then."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def call(self, what: str, **arguments: Any) -> Any:
        made = Host(self.log, env=arguments.get("env"))
        try:
            return made.call(what, **arguments)
        except AssertionError as reason:
            raise Refused(str(reason)) from reason
        finally:
            made.close()


@pytest.mark.long
def test_every_variable_in_the_engine(forks: Host, model: Path, tmp_path: Path, plain: Seen) -> None:
    """Each variable of the environment that vLLM knows set in turn; those first that are not in the identity.

    Takes most of an hour. KVSTORE_MUTATIONS is as above.
    """
    from kvstore.vllm.left_out import ENVIRONMENT_LEFT_OUT

    variables = forks.call("variables")
    outside = {name: name in ENVIRONMENT_LEFT_OUT or is_elsewhere(name) for name in variables}
    results = Path(os.environ.get("KVSTORE_MUTATIONS") or tmp_path) / "vllm-variables.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    done = {one["field"]: one for one in map(json.loads, lines)}
    afresh = Afresh(tmp_path / "log")
    assert look(afresh, model, tmp_path) == plain
    with results.open("a") as file:
        for name in sorted(variables, key=lambda name: (not outside[name], variables[name]["at_import"], name)):
            if name not in done:
                ways = [{"env": {name: value}} for value in variables[name]["values"]]
                one = afresh if variables[name]["at_import"] and outside[name] else forks
                most = 2 if outside[name] else 1
                done[name] = mutated(one, model, tmp_path, {}, plain, name, most=most, ways=ways)
                file.write(json.dumps(done[name]) + "\n")
                file.flush()
    started = [one for one in done.values() if one["started"]]
    counts = {word: sum(one[word] for one in started) for word in ("computed", "renamed")}
    print(f"variables: {len(done)} set, {len(started)} started, {counts}, {sum(outside.values())} on the list")
    assert [one for one in started if one["computed"] and not one["renamed"] and not one["near"]] == []
    assert [one for one in started if one["renamed"] == outside[one["field"]]] == []


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["tokens"] == other["tokens"] and all(
        abs(float.fromhex(ours) - float.fromhex(theirs)) < 0.05
        for ours, theirs in zip(one["logprobs"], other["logprobs"], strict=True)
    )


@pytest.mark.parametrize(
    ("variable", "value", "counts"),
    [
        ("VLLM_VARIABLE_OF_A_LATER_VERSION", "1", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", True),
        ("VLLM_LOGGING_LEVEL", "DEBUG", False),
        ("VLLM_CPU_KVCACHE_SPACE", "2", False),
    ],
)
def test_environment(
    forks: Host, model: Path, tmp_path: Path, plain: Seen, variable: str, value: str, counts: bool
) -> None:
    seen = look(forks, model, tmp_path, env={variable: value})
    assert (seen.identity != plain.identity) == counts
    assert counts or seen.answer == plain.answer


def test_what_an_operator_changes_costs_no_misses(host: Host, model: Path, store: dict[str, Any]) -> None:
    """Names, limits, memory, a drafter without KV: what was stored is found, and right."""
    first = run(host, model, store, {}, {})[1]
    assert first["cached"] == STORED
    changed: dict[str, Any] = {
        "served_model_name": "other",
        "max_num_seqs": 32,
        "max_num_batched_tokens": 1024,
        "gpu_memory_utilization": 0.5,
        "num_gpu_blocks_override": 20,
        "disable_log_stats": False,
        "max_logprobs": 7,
        "generation_config": "vllm",
    }
    restored = run(host, model, store, options=changed)[0]
    assert restored["cached"] == STORED and same(restored, first)


def test_guessing_from_the_tokens_has_no_kv(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    first = run(host, model, store, {}, {})[1]
    guess = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
    # In a process of its own: after what it imports, vLLM 0.32 does not start again in the same one.
    other = Host(tmp_path / "log")
    try:
        restored = run(other, model, store, options={"speculative_config": guess})[0]
    finally:
        other.close()
    assert restored["cached"] == STORED and restored["tokens"] == first["tokens"]


# ---------------------------------------------------------------- what is loaded


def test_longrope_chooses_its_factors_by_the_longest_context(host: Host, models: Path, store: dict[str, Any]) -> None:
    short, long = ({"max_model_len": length, "num_gpu_blocks_override": 40} for length in (2048, 4096))
    stored = run(host, models / "longrope", store, options=short)[0]
    found = run(host, models / "longrope", store, options=long)[0]
    truth = run(host, models / "longrope", None, options=long)[0]
    assert found["cached"] == 0 and same(found, truth) and stored["tokens"] != truth["tokens"]
    assert run(host, models / "longrope", store, options=short)[0]["cached"] == STORED


@pytest.mark.parametrize("way", ["reload_weights", "a function"])
def test_weights_that_change_while_vllm_runs(host: Host, models: Path, store: dict[str, Any], way: str) -> None:
    """Neither the old weights' KV is found with the new ones, nor the other way round."""
    second = tokens(2, 3 * BLOCK + 16)
    with host.engine(models / "one", store):
        old = host.generate(PROMPT)
        if way == "reload_weights":
            host.call("rpc", method="reload_weights", weights_path=str(models / "two"))
        else:
            host.call("apply")
        # What was being saved ends with a step.
        host.generate(tokens(9, 8))
        assert host.call("reset")
        new = host.generate(PROMPT)
        assert new["cached"] == 0 and new["tokens"] != old["tokens"]
        host.generate(second)
        host.generate(tokens(9, 8))
    assert "may have changed the weights" in host.said()
    # Started again, with the old weights: what the new ones computed is not there, what the old ones did is.
    with host.engine(models / "one", store):
        restored = host.generate(PROMPT)
        assert restored["cached"] == STORED and restored["tokens"] == old["tokens"]
        assert host.generate(second)["cached"] == 0


def test_weights_that_are_replaced_on_disk(host: Host, models: Path, store: dict[str, Any], tmp_path: Path) -> None:
    assert run(host, models / "replaced", store, {}, {})[1]["cached"] == STORED
    write_model(models / "replaced", seed=2)
    time.sleep(0.3)
    later = Host(tmp_path / "log")
    try:
        found = run(later, models / "replaced", store)[0]
        truth = run(later, models / "replaced", None)[0]
        assert found["cached"] == 0 and same(found, truth)
        assert run(later, models / "replaced", store)[0]["cached"] == STORED
    finally:
        later.close()


def adapter(path: Path, *, number: int = 1, name: str = "a", inplace: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"lora_name": name, "lora_int_id": number, "lora_path": str(path)}
    return {**made, "load_inplace": True} if inplace else made


def test_adapters(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    """An adapter is what vLLM has loaded of it, whatever becomes of its files, its name and its number."""
    options = {"options": {"enable_lora": True, "max_lora_rank": 16}}
    path = tmp_path / "adapter"
    write_adapter(path, seed=1)
    # What training leaves behind is not read.
    (path / "optimizer.pt").write_bytes(b"state")
    with host.engine(model, store, **options):
        base = host.generate(PROMPT)
        first = host.generate(PROMPT, adapter=adapter(path))
        assert first["cached"] == 0 and first["tokens"] != base["tokens"]
        # Its files are overwritten while vLLM goes on with what it has.
        write_adapter(path, seed=2)
        (path / "optimizer.pt").write_bytes(b"other")
        second = tokens(2, 3 * BLOCK + 16)
        under_old = host.generate(second, adapter=adapter(path))
    with host.engine(model, None, **options):
        truth = host.generate(PROMPT, adapter=adapter(path))
        second_truth = host.generate(second, adapter=adapter(path))
    assert truth["tokens"] != first["tokens"] and second_truth["tokens"] != under_old["tokens"]
    with host.engine(model, store, **options):
        new = host.generate(PROMPT, adapter=adapter(path))
        assert new["cached"] == 0 and same(new, truth)
        assert host.generate(second, adapter=adapter(path))["cached"] == 0
        # The base model has its own, and so has the adapter of before, under whatever name and number.
        assert host.generate(PROMPT)["cached"] == STORED
    write_adapter(tmp_path / "elsewhere", seed=1)
    with host.engine(model, store, **options):
        restored = host.generate(PROMPT, adapter=adapter(tmp_path / "elsewhere", number=7, name="b"))
        assert restored["cached"] == STORED and restored["tokens"] == first["tokens"]
        assert host.generate(second, adapter=adapter(tmp_path / "elsewhere", number=7, name="b"))["cached"] == STORED


def test_an_adapter_with_another_scale(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    options = {"options": {"enable_lora": True, "max_lora_rank": 16}}
    write_adapter(tmp_path / "adapter", seed=1)
    run(host, model, store, {"adapter": adapter(tmp_path / "adapter")}, **options)
    write_adapter(tmp_path / "adapter", seed=1, alpha=32)
    found = run(host, model, store, {"adapter": adapter(tmp_path / "adapter")}, **options)[0]
    truth = run(host, model, None, {"adapter": adapter(tmp_path / "adapter")}, **options)[0]
    assert found["cached"] == 0 and same(found, truth)


def test_an_adapter_that_is_replaced_in_place(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    """vLLM's own cache goes by name and path, and may mix both: what it computes from then on is not stored."""
    options = {"options": {"enable_lora": True, "max_lora_rank": 16}}
    path = tmp_path / "adapter"
    write_adapter(path, seed=1)
    write_adapter(tmp_path / "two", seed=2)
    of_two, of_one, longer = tokens(3, STORED + 16), tokens(5, STORED + 16), [*PROMPT, *tokens(4, BLOCK)]
    with host.engine(model, store, **options):
        host.generate(of_two, adapter=adapter(tmp_path / "two", number=2, name="two"))
        host.generate(of_one, adapter=adapter(path))
    with host.engine(model, store, **options):
        host.generate(PROMPT, adapter=adapter(path))
        write_adapter(path, seed=2)
        host.call("add_adapter", adapter=adapter(path, inplace=True))
        # The scheduler has not heard of it yet: what is stored of the old content is of no use.
        replaced = host.generate(of_one, adapter=adapter(path))
        # By now it has, and what is stored of the new content is.
        assert host.generate(of_two, adapter=adapter(path))["cached"] == STORED
        assert host.generate(longer, adapter=adapter(path))["cached"] == STORED
    with host.engine(model, None, **options):
        assert near(replaced, host.generate(of_one, adapter=adapter(path)))
        truth = host.generate(longer, adapter=adapter(path))
    with host.engine(model, store, **options):
        found = host.generate(longer, adapter=adapter(path))
        assert found["cached"] == 0 and same(found, truth)


def test_an_adapter_that_is_not_there(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    with host.engine(model, store, options={"enable_lora": True}), pytest.raises(Refused):
        host.generate(PROMPT, adapter=adapter(tmp_path / "none"))


def test_ranks_with_as_many_other_layers(host: Host, model: Path, store: dict[str, Any]) -> None:
    """A pipeline cut 2, 2, 1 and one cut 1, 2, 2: the middle ranks have two layers each, and other ones."""
    with host.engine(model, store):
        one, other, same_again = host.call("identities", parts=[[1, 2], [2, 3], [1, 2]])
    assert one == same_again and one != other


@pytest.mark.parametrize("digest", ["", " ", "00", "0" * 63, "zz" * 32])
def test_a_digest_that_is_none(host: Host, model: Path, store: dict[str, Any], digest: str) -> None:
    with pytest.raises(Refused, match="32 bytes in hexadecimal"), host.engine(model, {**store, "weights_digest": digest}):
        pass


def test_a_digest_that_is_given(host: Host, model: Path, store: dict[str, Any]) -> None:
    run(host, model, {**store, "weights_digest": "ab" * 32})
    assert run(host, model, {**store, "weights_digest": "ab" * 32})[0]["cached"] == STORED
    assert run(host, model, {**store, "weights_digest": "cd" * 32})[0]["cached"] == 0


def test_weights_that_were_changed_since_the_start(host: Host, model: Path, store: dict[str, Any], tmp_path: Path) -> None:
    """What was read before, and what after, nobody can tell: the blocks are of this process alone."""
    shutil.copytree(model, tmp_path / "model")
    made = Host(tmp_path / "log")
    try:
        with pytest.raises(Refused):
            made.call("nothing")
        (tmp_path / "model" / "model.safetensors").touch()
        run(made, tmp_path / "model", store)
        assert run(made, tmp_path / "model", store)[0]["cached"] == 0
        assert "was changed since this engine began to start" in made.said()
    finally:
        made.close()
    # One that starts later has no doubt.
    later = Host(tmp_path / "log2")
    try:
        run(later, tmp_path / "model", store)
        assert run(later, tmp_path / "model", store)[0]["cached"] == STORED
    finally:
        later.close()
