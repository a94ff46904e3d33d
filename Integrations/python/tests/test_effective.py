"""The record of an engine's configuration: by content, whatever kind of value it is."""

from __future__ import annotations

import dataclasses
import enum
import functools
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from kvstore.effective import Effective, code_digest, digest_setting, environment, module_code_digest


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Part:
    name: str = "part"
    port: int = 1


@dataclasses.dataclass
class Whole:
    part: Part = dataclasses.field(default_factory=Part)
    value: Any = None


def digest(value: Any, left_out: dict[str, str] | None = None) -> bytes:
    effective = Effective(left_out or {})
    made = effective.digest(value)
    assert effective.unnameable == []
    return made


VALUES = [
    None,
    True,
    1,
    1.0,
    "1",
    b"1",
    [1],
    (1, 2),
    {1},
    {"1": 1},
    {1: 1},
    Colour.RED,
    Colour.BLUE,
    Path("1"),
    Part(),
    Part(port=2),
    Part,
    len,
    functools.partial(len, "1"),
    types.SimpleNamespace(a=1),
    types.SimpleNamespace(b=1),
    lambda: 1,
    lambda: 2,
]


def test_values_that_differ_have_records_that_differ() -> None:
    records = {digest(Whole(value=value)) for value in VALUES}
    assert len(records) == len(VALUES)


def test_equal_content_has_equal_records() -> None:
    assert digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    assert digest(Whole()) == digest(Whole())


def test_only_the_listed_field_is_left_out() -> None:
    listed = {"Part.port": "where it listens"}
    assert digest(Whole(part=Part(port=7)), listed) == digest(Whole(), listed)
    assert digest(Whole(part=Part(name="other")), listed) != digest(Whole(), listed)

    class Later(Part):
        pass

    assert digest(Later(port=7), listed) == digest(Later(), listed)
    later = Part()
    later.field_of_a_later_version = 1  # type: ignore[attr-defined]
    assert digest(later, listed) != digest(Part(), listed)


def test_a_configuration_that_refuses_to_tell_a_field() -> None:
    @dataclasses.dataclass
    class OfLayers:
        """As transformers' configurations are whose layers differ."""

        head_dim: int = 64
        overrides: dict[int, int] = dataclasses.field(default_factory=dict)

        def __getattribute__(self, name: str) -> Any:
            if name == "head_dim":
                raise RuntimeError("it varies across layers")
            return super().__getattribute__(name)

    assert digest(OfLayers()) == digest(OfLayers())
    assert len({digest(made) for made in (OfLayers(), OfLayers(head_dim=128), OfLayers(overrides={1: 2}))}) == 3


def test_what_holds_itself() -> None:
    one, other = Whole(), Whole()
    one.value = [one]
    other.value = [other]
    assert digest(one) == digest(other)


def test_a_value_without_content_is_named() -> None:
    effective = Effective({})
    effective.digest(Whole(value={"lock": threading.Lock()}))
    assert len(effective.unnameable) == 1 and ".value['lock']" in effective.unnameable[0]


def test_code_is_told_by_what_it_does() -> None:
    def made(source: str) -> types.ModuleType:
        module = types.ModuleType("remote")
        exec(source, module.__dict__)
        return module

    source = "FACTOR = 2\nclass Model:\n    def forward(self, x, y=1):\n        return x * FACTOR + y\n"
    before = module_code_digest(made(source))
    assert module_code_digest(made("# a comment\n" + source)) == before
    for old, new in {"FACTOR = 2": "FACTOR = 3", "x * FACTOR": "x + FACTOR", "y=1": "y=2", "Model": "Other"}.items():
        assert module_code_digest(made(source.replace(old, new))) != before, new
    listed = {"remote.FACTOR": "why"}
    assert module_code_digest(made(source.replace("= 2", "= 3")), listed) == module_code_digest(made(source), listed)
    assert module_code_digest(made(source), {"another.FACTOR": "why"}) == before

    assert code_digest((lambda: {1, 2}).__code__) == code_digest((lambda: {1, 2}).__code__)


def test_code_beside_values_that_answer_anything_or_nothing() -> None:
    class Missing:
        """As what stands for a package that is not installed."""

        def __getattr__(self, name: str) -> Any:
            raise ModuleNotFoundError(name)

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return self

    def made(factor: int) -> types.ModuleType:
        module = types.ModuleType("remote")
        exec(f"def double(x):\n    return x * {factor}\n", module.__dict__)
        vars(module).update(missing=Missing(), anything=Anything(), other=types, slot=types.FunctionType.__dict__["__code__"])
        return module

    assert module_code_digest(made(2)) == module_code_digest(made(2)) != module_code_digest(made(3))


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSTORETEST_A", "1")
    monkeypatch.setenv("KVSTORETEST_B", "2")
    assert environment(("KVSTORETEST_",), {"KVSTORETEST_B": "why"}) == {"KVSTORETEST_A": "1"}
    names = ["KVSTORETEST_A", "KVSTORETEST_B", "KVSTORETEST_C"]
    assert environment((), {"KVSTORETEST_B": "why"}, names) == {"KVSTORETEST_A": "1"}


@pytest.mark.parametrize("value", ["", " ", "00", "0" * 63, "0" * 65, "zz" * 32, " " + "0" * 63, b"0" * 64, 0, None])
def test_a_digest_is_32_bytes_in_hexadecimal(value: Any) -> None:
    assert digest_setting("weights_digest", "aB" * 32) == bytes.fromhex("ab" * 32)
    with pytest.raises(ValueError, match="weights_digest is .* 32 bytes in hexadecimal"):
        digest_setting("weights_digest", value)
