"""The scheduler's side against a real store, with requests and steps as vLLM hands them over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFeatureSpec,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)

import kvstore
from kvstore.vllm import scheduler
from kvstore.vllm.metadata import StepMetadata, WorkerNews
from kvstore.vllm.options import Options
from kvstore.vllm.scheduler import SchedulerSide

BLOCK = 16
REGION = 32_768
RANKS = [(0, 0), (0, 1)]


def identity(rank: tuple[int, int], **more: Any) -> kvstore.Identity:
    return kvstore.Identity(
        tokens_per_block=BLOCK, region_bytes=(REGION,), tensor_parallel_rank=rank[1], tensor_parallel_size=2, **more
    )


class Request(SimpleNamespace):
    """The fields of vLLM's Request that the scheduler's side reads."""

    def __init__(self, name: str, tokens: list[int], **more: Any) -> None:
        super().__init__(
            **{
                "request_id": name,
                "all_token_ids": tokens,
                "prompt_token_ids": tokens,
                "num_prompt_tokens": len(tokens),
                "num_computed_tokens": 0,
                "num_in_flight_tokens": 0,
                "prompt_embeds": None,
                "resumable": False,
                "lora_request": None,
                "cache_salt": None,
                "mm_features": [],
                "skip_reading_prefix_cache": False,
                **more,
            }
        )

    @property
    def num_tokens(self) -> int:
        return len(self.all_token_ids)


def output(new: dict[str, tuple[list[int], int]] | None = None, cached: Any = (), preempted: Any = None) -> Any:
    """A step: new requests with their blocks and computed tokens; cached ones as (name, new blocks, computed, resumed)."""
    new = new or {}
    return SimpleNamespace(
        scheduled_new_reqs=[
            SimpleNamespace(req_id=name, block_ids=(blocks,), num_computed_tokens=computed)
            for name, (blocks, computed) in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[entry[0] for entry in cached],
            new_block_ids=[(entry[1],) if entry[1] else None for entry in cached],
            num_computed_tokens=[entry[2] for entry in cached],
            resumed_req_ids={entry[0] for entry in cached if entry[3]},
        ),
        preempted_req_ids=preempted,
        total_num_scheduled_tokens=len(new) + len(cached),
    )


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options.of({"path": str(tmp_path / "store"), "disk_bytes": "128MiB", "host_bytes": "16MiB"})


@pytest.fixture
def store(options: Options) -> Any:
    with options.open(REGION) as opened:
        yield opened


@pytest.fixture
def side(options: Options, store: kvstore.Store) -> Any:
    side = SchedulerSide(options, BLOCK)
    side.workers({rank: identity(rank) for rank in RANKS})
    yield side
    side.close()


def fill(store: kvstore.Store, rank: tuple[int, int], tokens: list[int], **more: Any) -> None:
    blocks = len(tokens) // BLOCK
    prompt = kvstore.Prompt(tokens[: blocks * BLOCK])
    store.namespace(identity(rank, **more)).offload(prompt, [bytes(REGION)] * blocks)
    store.flush()


def transfers(step: StepMetadata) -> list[tuple[str, int, int]]:
    return [(save.request_id, save.first_block, save.block_count) for save in step.saves]


def test_the_shortest_prefix_of_all_ranks_counts(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(100))
    request = Request("a", tokens)
    assert side.matched_tokens(request, 0) == (0, False)
    # A look-up alone makes no namespaces.
    assert store.existing_namespace(identity(RANKS[0])) is None
    fill(store, RANKS[0], tokens)
    assert side.matched_tokens(request, 0) == (0, False)
    fill(store, RANKS[1], tokens[:48])
    assert side.matched_tokens(request, 0) == (48, True)
    assert side.matched_tokens(request, 32) == (16, True)
    assert side.matched_tokens(request, 48) == (0, False)
    # One token is left to compute.
    assert side.matched_tokens(Request("b", tokens[:48]), 0) == (32, True)
    assert store.stats()["leases_active"] == 0


def test_a_load_has_a_lease_in_each_rank(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(100))
    for rank in RANKS:
        fill(store, rank, tokens)
    request = Request("a", tokens)
    matched, _ = side.matched_tokens(request, 16)
    side.allocated(request, ([7, 8, 9, 10, 11, 12, 13],), matched)
    assert store.stats()["leases_active"] == 2
    step = side.step(output())
    (load,) = step.loads
    assert (load.first_block, load.block_count, set(load.leases)) == (1, 5, set(RANKS))
    (update,) = step.updates
    assert (list(update.tokens), update.block_ids, update.first_token) == (tokens[:96], [7, 8, 9, 10, 11, 12, 13], 0)
    for (lease,) in load.leases.values():
        store.release(lease)
    # Loaded, then scheduled: what was loaded is not saved again.
    side.loaded({"a"}, set())
    request.num_computed_tokens = 96
    side.step(output(new={"a": ([7, 8, 9, 10, 11, 12, 13], 96)}))
    assert not side.finished(request, ([7, 8, 9, 10, 11, 12, 13],))


def test_a_request_that_is_aborted_before_it_loads_leaves_no_lease(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens)
    request = Request("a", tokens)
    side.allocated(request, ([1, 2, 3, 4],), side.matched_tokens(request, 0)[0])
    assert store.stats()["leases_active"] == 2
    # vLLM itself waits for the load, so it must not be told to wait twice.
    assert side.finished(request, ([1, 2, 3, 4],)) is False
    assert store.stats()["leases_active"] == 0


def test_a_failed_load_is_not_tried_again(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens)
    request = Request("a", tokens)
    side.allocated(request, ([1, 2, 3, 4],), side.matched_tokens(request, 0)[0])
    side.step(output())
    side.loaded({"a"}, {2})
    assert side.matched_tokens(request, 0) == (0, False)
    assert side.matched_tokens(Request("b", tokens), 0) == (48, True)


def test_an_id_that_is_used_again_at_once(side: SchedulerSide, store: kvstore.Store) -> None:
    """The workers hear in one step that a request has ended, and of the next one: only of an end that they must know."""
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens)
    short = Request("a", list(range(500, 508)))
    side.allocated(short, ([9],), 0)
    side.step(output(new={"a": ([9], 0)}))
    assert side.finished(short, ([9],)) is False
    request = Request("a", tokens)
    side.allocated(request, ([1, 2, 3, 4],), side.matched_tokens(request, 0)[0])
    step = side.step(output())
    assert [update.first_token for update in step.updates] == [0]
    assert (len(step.loads), step.forgotten) == (1, set())
    side.loaded({"a"}, set())
    # This one they know.
    assert side.finished(request, ([1, 2, 3, 4],)) is False
    assert side.step(output()).forgotten == {"a"}


def test_blocks_are_saved_once_their_step_has_come_back(side: SchedulerSide) -> None:
    request = Request("a", list(range(100)))
    side.allocated(request, ([1, 2, 3, 4, 5, 6, 7],), 0)
    assert transfers(side.step(output(new={"a": ([1, 2, 3, 4, 5, 6, 7], 0)}))) == []
    step = side.step(output(cached=[("a", [], 64, False)]))
    assert transfers(step) == [("a", 0, 4)]
    assert list(step.updates[0].tokens) == list(range(64))
    # The step before is still under way.
    request.num_in_flight_tokens = 36
    assert transfers(side.step(output(cached=[("a", [], 100, False)]))) == []
    request.num_in_flight_tokens = 1
    request.all_token_ids += [500, 501]
    step = side.step(output(cached=[("a", [], 101, False)]))
    assert transfers(step) == [("a", 4, 2)]
    assert (step.updates[0].first_token, list(step.updates[0].tokens)) == (64, list(range(64, 96)))
    # Generated tokens fill a block, at the end.
    request.all_token_ids += list(range(502, 515))
    request.num_computed_tokens, request.num_in_flight_tokens = 114, 0
    assert side.finished(request, ([1, 2, 3, 4, 5, 6, 7, 8],)) is True
    step = side.step(output())
    assert (transfers(step), step.finishing) == ([("a", 6, 1)], {"a"})


def test_a_block_whose_last_token_has_not_been_computed_is_not_saved(side: SchedulerSide) -> None:
    request = Request("a", list(range(31)))
    side.allocated(request, ([1, 2],), 0)
    side.step(output(new={"a": ([1, 2], 0)}))
    request.all_token_ids = [*request.all_token_ids, 900]
    request.num_computed_tokens = 32
    side.finished(request, ([1, 2],))
    assert transfers(side.step(output())) == [("a", 0, 1)]


def test_what_a_failed_load_spoiled_is_saved_again(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(100))
    for rank in RANKS:
        fill(store, rank, tokens)
    request = Request("a", tokens)
    blocks = [1, 2, 3, 4, 5, 6, 7]
    side.allocated(request, (blocks,), side.matched_tokens(request, 0)[0])
    side.step(output(new={"a": (blocks, 96)}))
    side.loaded(set(), {3})
    # vLLM goes back to the third block.
    assert transfers(side.step(output(cached=[("a", [], 32, False)]))) == []
    assert transfers(side.step(output(cached=[("a", [], 100, False)]))) == [("a", 2, 4)]


def test_preempted_requests_start_over(side: SchedulerSide) -> None:
    request = Request("a", list(range(64)))
    side.allocated(request, ([1, 2, 3, 4],), 0)
    side.step(output(new={"a": ([1, 2, 3, 4], 0)}))
    side.step(output(cached=[("a", [], 32, False)]))
    assert side.step(output(preempted={"a"})).preempted == {"a"}
    step = side.step(output(cached=[("a", [9, 8, 7, 6], 0, True)]))
    assert transfers(step) == []
    step = side.step(output(cached=[("a", [], 64, False)]))
    assert transfers(step) == [("a", 0, 4)]
    assert step.updates[0].block_ids == [9, 8, 7, 6]


@pytest.mark.parametrize(("offload", "saved"), [("prompt", [("a", 0, 2)]), ("none", [])])
def test_what_is_offloaded_can_be_chosen(options: Options, offload: str, saved: list[Any]) -> None:
    side = SchedulerSide(Options.of({"path": options.path, "offload": offload}), BLOCK)
    side.workers({(0, 0): identity((0, 0))})
    request = Request("a", list(range(32)))
    side.allocated(request, ([1, 2, 3],), 0)
    side.step(output(new={"a": ([1, 2, 3], 0)}))
    request.all_token_ids = list(range(50))
    assert transfers(side.step(output(cached=[("a", [], 49, False)]))) == saved
    side.close()


def test_salts_and_images_are_part_of_the_identity(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens, salt=b"one")
    assert side.matched_tokens(Request("a", tokens), 0) == (0, False)
    assert side.matched_tokens(Request("b", tokens, cache_salt="one"), 0) == (48, True)
    request = Request("c", tokens, cache_salt="one", mm_features=[image(1)])
    assert side.matched_tokens(request, 0) == (16, True)


def image(content: int | None, name: str = "cat") -> MultiModalFeatureSpec:
    """Ten tokens of an image, from the twentieth on."""
    item = None
    if content is not None:
        pixels = torch.full((3, 4, 4), content, dtype=torch.float32)
        item = MultiModalKwargsItem(
            {"pixel_values": MultiModalFieldElem(data=pixels, field=MultiModalBatchedField())}
        )
    return MultiModalFeatureSpec(
        data=item, modality="image", identifier=name, mm_position=PlaceholderRange(offset=20, length=10)
    )


def test_images_are_told_apart_by_their_content_not_by_a_name(side: SchedulerSide) -> None:
    """vLLM names them by a counter that starts over with each process, where its own caches are off, or as a client says."""

    def extra(*features: MultiModalFeatureSpec) -> list[bytes]:
        return side._extra(Request("a", list(range(64)), mm_features=list(features)))

    assert extra(image(1)) == extra(image(1, "dog"))
    assert extra(image(1)) != extra(image(2))
    assert [bool(part) for part in extra(image(1))] == [False, True]
    # The content is with the worker alone.
    assert side.matched_tokens(Request("b", list(range(64)), mm_features=[image(None)]), 0) == (0, False)
    assert side._tenant(Request("b", list(range(64)), mm_features=[image(None)])) is None


@pytest.mark.parametrize("odd", [{"prompt_embeds": object()}, {"resumable": True}, {"skip_reading_prefix_cache": True}])
def test_requests_that_tokens_do_not_identify_are_not_looked_up(side: SchedulerSide, store: kvstore.Store, odd: Any) -> None:
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens)
    assert side.matched_tokens(Request("a", tokens, **odd), 0) == (0, False)


def lora(number: int = 1, path: str = "/adapter", **more: Any) -> Any:
    return SimpleNamespace(lora_name="a", lora_int_id=number, lora_path=path, load_inplace=False, **more)


def hear(side: SchedulerSide, *digests: bytes, number: int = 1) -> None:
    side.hear(WorkerNews(adapters={rank: {number: digest} for rank, digest in zip(RANKS, digests, strict=True)}))


def test_an_adapter_is_what_all_ranks_have_loaded(side: SchedulerSide) -> None:
    request = Request("a", list(range(64)), lora_request=lora())
    assert side.matched_tokens(request, 0) == (None, False)
    assert side.matched_tokens(request, 0) == (None, False)
    step = side.step(output())
    assert (step.adapters, step.idle) == ([request.lora_request], True)
    assert side._tenant(request) is None
    side.hear(WorkerNews(adapters={RANKS[0]: {1: b"one"}}))
    assert side.matched_tokens(request, 0) == (None, False)
    hear(side, b"one", b"other")
    assert side.matched_tokens(request, 0) == (0, False)
    digest = side._tenant(request).adapter_digest
    hear(side, b"one", b"changed")
    assert side._tenant(request).adapter_digest not in (digest, b"")
    # One that cannot be told from others, or could not be loaded.
    hear(side, b"one", b"")
    assert side.matched_tokens(request, 0) == (0, False) and side._tenant(request) is None


def test_an_adapter_that_left_the_memory_is_loaded_again_before_it_is_looked_up(side: SchedulerSide) -> None:
    request = Request("a", list(range(64)), lora_request=lora())
    hear(side, b"one", b"one")
    assert side.matched_tokens(request, 0) == (0, False)
    side.hear(WorkerNews(adapters={RANKS[0]: {}}))
    assert side.matched_tokens(request, 0) == (None, False)
    assert side.step(output()).adapters == [request.lora_request]


def test_an_adapter_that_is_never_loaded_holds_up_nothing(side: SchedulerSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_ADAPTER_SECONDS", 0.0)
    request = Request("a", list(range(64)), lora_request=lora())
    assert side.matched_tokens(request, 0) == (0, False)


def test_what_a_replaced_adapter_computes_is_not_stored(side: SchedulerSide) -> None:
    hear(side, b"one", b"one")
    before = Request("a", list(range(64)), lora_request=lora())
    side.allocated(before, ([1, 2, 3, 4],), 0)
    side.step(output(new={"a": ([1, 2, 3, 4], 0)}))
    hear(side, b"two", b"two")
    # One that was running, and a later one: vLLM's own cache may mix both.
    assert transfers(side.step(output(cached=[("a", [], 64, False)]))) == []
    after = Request("b", list(range(64)), lora_request=lora())
    side.allocated(after, ([5, 6, 7, 8],), 0)
    side.step(output(new={"b": ([5, 6, 7, 8], 0)}))
    assert transfers(side.step(output(cached=[("b", [], 64, False)]))) == []
    elsewhere = Request("c", list(range(64)), lora_request=lora(path="/elsewhere"))
    side.allocated(elsewhere, ([9, 10, 11, 12],), 0)
    side.step(output(new={"c": ([9, 10, 11, 12], 0)}))
    assert transfers(side.step(output(cached=[("c", [], 64, False)]))) == [("c", 0, 4)]


def test_after_other_weights_nothing_is_looked_up_or_saved(side: SchedulerSide, store: kvstore.Store) -> None:
    tokens = list(range(64))
    for rank in RANKS:
        fill(store, rank, tokens)
    request = Request("a", list(range(100, 164)))
    side.allocated(request, ([1, 2, 3, 4],), 0)
    side.step(output(new={"a": ([1, 2, 3, 4], 0)}))
    assert side.matched_tokens(Request("b", tokens), 0) == (48, True)
    side.hear(WorkerNews(changed=["reload_weights"]))
    assert side.matched_tokens(Request("b", tokens), 0) == (0, False)
    assert transfers(side.step(output(cached=[("a", [], 64, False)]))) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "path"),
        ({"path": "x", "disk": 1}, "unknown setting disk"),
        ({"path": "x", "load": "fast"}, "load is 'fast'"),
        ({"path": "x", "disk_bytes": "many"}, "not a size"),
        ({"path": "x", "weights_digest": "xyz"}, "32 bytes in hexadecimal"),
        ({"path": "x", "weights_digest": " "}, "32 bytes in hexadecimal"),
        ({"path": "x", "weights_digest": "00"}, "32 bytes in hexadecimal"),
        ({"path": "x", "load_threads": 0}, "load_threads"),
    ],
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options.of(settings)
