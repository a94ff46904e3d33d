"""What the library could not see: lengths that it is not given, numbers and text that would be cut off on the way."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TOKENS_PER_BLOCK, empty, identity, open_store, payloads

import kvstore
from kvstore import _abi
from kvstore.library import library
from kvstore.sizes import byte_count, nanoseconds

PROMPT = kvstore.Prompt(range(2 * TOKENS_PER_BLOCK))

# ------------------------------------------------------------ digests


def test_digests_of_one_prompt_are_of_one_length() -> None:
    with pytest.raises(ValueError, match="one length"):
        kvstore.Prompt(digests=[b"a" * 16, b"a" * 16 + b"b" * 32])


@pytest.mark.parametrize("length", [1, 31, 33, 64])
def test_digests_of_another_length_than_the_namespace_s(store: kvstore.Store, length: int) -> None:
    namespace = store.namespace(identity(digest_bytes=32))
    assert namespace.offload(kvstore.Prompt(digests=[b"a" * 32, b"b" * 32]), payloads(range(2))).blocks_done == 2
    # As many as make it read far behind them, if it did read on.
    wrong = kvstore.Prompt(digests=[b"a" * length] * 100_000)
    session = namespace.session()
    section = namespace.section("state", 4096)
    calls: list[Callable[[], object]] = [
        lambda: namespace.block_keys(wrong),
        lambda: namespace.match(wrong, peek=True),
        lambda: namespace.match(wrong.prefix(digests=2), peek=True),
        lambda: kvstore.Namespace.match_all([namespace], wrong),
        lambda: namespace.match_sections([section], wrong),
        lambda: section.section_digest(wrong),
        lambda: namespace.restore(wrong, empty(1), block_count=1),
        lambda: namespace.offload(wrong, payloads(range(1)), block_count=1),
        lambda: namespace.touch(wrong),
        lambda: namespace.pin(wrong, 1),
        lambda: namespace.forget(wrong),
        lambda: namespace.purge(wrong),
        lambda: session.match(wrong),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"digests of {length} bytes.*32"):
            call()
    assert namespace.match(kvstore.Prompt(digests=[b"a" * 32, b"b" * 32]), peek=True).blocks == 2


def test_digests_in_a_namespace_of_tokens(namespace: kvstore.Namespace) -> None:
    with pytest.raises(ValueError, match="by tokens"):
        namespace.match(kvstore.Prompt(digests=[b"a" * 32]))


# ------------------------------------------------------------ numbers


NUMBERS = (
    "tokens_per_block digest_bytes layer_count kv_head_count head_size extra_bytes_max tensor_parallel_rank "
    "tensor_parallel_size pipeline_parallel_rank pipeline_parallel_size context_parallel_rank context_parallel_size"
).split()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [2**32 + 1, -1, 2**64])
def test_a_number_of_the_identity_that_does_not_fit(store: kvstore.Store, name: str, value: int) -> None:
    with pytest.raises(OverflowError, match=f"{name} is {re.escape(str(value))}"):
        store.namespace(identity(**{name: value}))


def test_another_rank_s_blocks_are_not_found(store: kvstore.Store) -> None:
    ranked = {"tensor_parallel_size": 2, "tensor_parallel_rank": 1}
    store.namespace(identity(**ranked)).offload(PROMPT, payloads(range(2)))
    with pytest.raises(OverflowError):
        store.namespace(identity(**{**ranked, "tensor_parallel_rank": 2**32 + 1}))


@pytest.mark.parametrize("sizes", [(-1,), (2**64 + 4096,)])
def test_a_region_s_size_that_does_not_fit(store: kvstore.Store, sizes: tuple[int, ...]) -> None:
    with pytest.raises(OverflowError, match="region_bytes"):
        store.namespace(identity(region_bytes=sizes))
    with pytest.raises(OverflowError, match="window_tokens"):
        store.namespace(identity(groups=(kvstore.Group(0, 1, 2**32 + 5),)))


def test_numbers_of_calls_that_do_not_fit(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    data = payloads(range(2))
    for arguments in (
        {"priority": 2**32 + 50},
        {"priority": -1},
        {"first_block": -1},
        {"block_count": 2**64},
        {"first_region": 2**32},
        {"region_count": 2**40},
    ):
        with pytest.raises(OverflowError):
            namespace.offload(PROMPT, data, **arguments)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        namespace.restore(PROMPT, empty(1), prefix_block_count=2**64 + 1)
    with pytest.raises(OverflowError):
        namespace.section("state", 2**64 + 4096)
    with pytest.raises(OverflowError):
        store.events(cursor=2**64)
    lease = namespace.match(PROMPT).lease
    for call in (store.release, store.unpin, lambda number: store.extend(number, 1)):
        with pytest.raises(OverflowError):
            call(2**64 + lease + 1)
    with pytest.raises(OverflowError):
        kvstore.Spans.at([4096], -1)
    assert namespace.match(PROMPT, peek=True).blocks == 0


def test_a_long_life_does_not_end_at_once(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    with pytest.raises(OverflowError, match="math.inf"):
        namespace.offload(PROMPT, payloads(range(2)), ttl_seconds=18446744073.8)
    for absolute in (False, True):
        for start, seconds in ((1000, 18446744073.7), (2000, 9223372036.9), (3000, math.inf), (4000, 1e9)):
            first = start + (500 if absolute else 0)
            prompt = kvstore.Prompt(range(first, first + TOKENS_PER_BLOCK))
            if seconds == math.inf and absolute:
                continue
            namespace.offload(prompt, payloads(range(1)), ttl_seconds=seconds, ttl_absolute=absolute)
            store.flush()
            assert namespace.match(prompt, peek=True).blocks == 1, (seconds, absolute)


def test_times() -> None:
    assert nanoseconds(0) == 0
    # 0 means something else, wherever a time is given.
    assert nanoseconds(1e-12) == 1
    assert nanoseconds(1.5) == 1_500_000_000
    for wrong in (math.inf, 18446744073.709553, 1e300):
        with pytest.raises(OverflowError):
            nanoseconds(wrong)
    for wrong in (-1, -1e-12, math.nan):
        with pytest.raises(ValueError):
            nanoseconds(wrong)


def test_sizes(path: Path) -> None:
    for wrong in (2**64, "16777216TiB", "99999999999999999999"):
        with pytest.raises(OverflowError):
            byte_count(wrong)
        with pytest.raises(OverflowError):
            open_store(path, capacity=wrong)
    assert not path.exists()
    # Exact, where a float would not be.
    assert byte_count("9007199254740993") == 2**53 + 1


# ------------------------------------------------------------ text


def test_a_nul_byte_does_not_cut_a_name(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        namespace = store.namespace(identity())
        namespace.section("mamba", 4096)
        with pytest.raises(ValueError, match="NUL"):
            namespace.section("mamba\0other", 4096)
        with pytest.raises(ValueError, match="NUL"):
            namespace.session("a\0b")
        for name in ("model_name", "kv_dtype", "kv_quantization", "layout", "rope", "engine_format"):
            with pytest.raises(ValueError, match=f"{name}.*NUL"):
                store.namespace(identity(**{name: "a\0b"}))
    with pytest.raises(ValueError, match="NUL"):
        open_store(Path(f"{path}\0other"))
    with pytest.raises(ValueError, match="archive_path.*NUL"):
        open_store(tmp_path / "more", archive="64MiB", archive_path=f"{tmp_path}/a\0b")
    assert not (tmp_path / "more").exists()


def test_every_field_and_argument_is_checked() -> None:
    # A structure or function that is added later is to be so, too.
    for structure in (_abi.Config, _abi.Group, _abi.NamespaceConfig, _abi.Prompt, _abi.Transfer):
        for name, kind in structure._fields_:
            value = structure()
            if kind in (_abi.c_uint32, _abi.c_uint64, _abi.c_size_t):
                with pytest.raises(OverflowError):
                    setattr(value, name, -1)
            elif kind is _abi.c_char_p:
                with pytest.raises(ValueError):
                    setattr(value, name, b"a\0b")
    for name in _abi.FUNCTIONS:
        for kind in getattr(library(), name).argtypes:
            if kind.__name__.lower().startswith(("c_u", "_u")):
                with pytest.raises(OverflowError):
                    kind.from_param(-1)


# ------------------------------------------------------------ handles


def test_what_is_open_is_not_pickled(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    with namespace.session() as session:
        for handle in (store, namespace, namespace.section("state", 4096), session):
            for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="cannot be pickled or copied"):
                    attempt(handle)  # type: ignore[operator]
    # What is a value may travel.
    assert pickle.loads(pickle.dumps(namespace.identity)) == namespace.identity


def test_a_salt_is_not_shown() -> None:
    shown = repr(identity(salt=b"the tenant's secret"))
    assert "secret" not in shown and "salt" not in shown and "model_name" in shown
    assert identity(salt=b"a") != identity(salt=b"b")
