"""Finding the library, and agreeing with its header."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HEADER

import kvstore
from kvstore import _abi
from kvstore.library import HEADER_VERSION, library


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_version_is_that_of_the_header() -> None:
    number = re.search(r"^#define KVSTORE_VERSION (\d+)u", HEADER.read_text(), re.MULTILINE)
    assert number and int(number[1]) == HEADER_VERSION
    assert kvstore.version() == kvstore.__version__


def test_import_needs_no_engine_and_no_library() -> None:
    code = "import sys, kvstore; print([m for m in ('torch', 'vllm', 'sglang', 'numpy') if m in sys.modules])"
    done = python(code, KVSTORE_LIBRARY="/nowhere/libkvstore.so")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_library_that_was_named_and_is_not_there_is_an_error() -> None:
    done = python("import kvstore; kvstore.version()", KVSTORE_LIBRARY="/nowhere/libkvstore.so")
    assert done.returncode != 0
    assert "LibraryNotFoundError" in done.stderr and "/nowhere/libkvstore.so" in done.stderr


def test_calls_release_the_interpreter_lock() -> None:
    # ctypes keeps the lock only for functions of the Python API (PyDLL), which carry this flag.
    python_api = 4
    for name in _abi.FUNCTIONS:
        assert not getattr(library(), name)._flags_ & python_api, name


STRUCTURES = {
    "kvstore_config_t": _abi.Config,
    "kvstore_flush_result_t": _abi.FlushResult,
    "kvstore_stats_t": _abi.Stats,
    "kvstore_bytes_t": _abi.Bytes,
    "kvstore_namespace_config_t": _abi.NamespaceConfig,
    "kvstore_prompt_t": _abi.Prompt,
    "kvstore_block_key_t": _abi.BlockKey,
    "kvstore_match_t": _abi.Match,
    "kvstore_span_t": _abi.Span,
    "kvstore_transfer_t": _abi.Transfer,
    "kvstore_transfer_result_t": _abi.TransferResult,
    "kvstore_event_t": _abi.Event,
    "kvstore_explanation_t": _abi.Explanation,
}


def test_structures_are_laid_out_as_in_the_header(tmp_path: Path) -> None:
    lines = ['#include "kvstore.h"', "#include <stdio.h>", "#include <stddef.h>", "int main(void) {"]
    for name, structure in STRUCTURES.items():
        for field, *_ in structure._fields_:
            lines.append(
                f'printf("{name} {field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));'
            )
    (tmp_path / "layout.c").write_text("\n".join([*lines, "return 0; }"]))
    program = tmp_path / "layout"
    subprocess.run(
        ["cc", "-I", str(HEADER.parent), "-o", str(program), str(tmp_path / "layout.c")], check=True, timeout=120
    )
    shown = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    seen = 0
    for line in shown.splitlines():
        name, field, offset, size = line.split()
        ours = getattr(STRUCTURES[name], field)
        # Fields that a newer header has behind these are not known here, and have their defaults.
        assert (ours.offset, ours.size) == (int(offset), int(size)), line
        seen += 1
    assert seen == sum(len(structure._fields_) for structure in STRUCTURES.values())


def test_status_numbers_are_those_of_the_header() -> None:
    text = HEADER.read_text()
    for status in kvstore.Status:
        name = f"KVSTORE_{'E_' if status < 0 else ''}{status.name}"
        number = re.search(rf"^#define {name} \(?(-?\d+)\)?", text, re.MULTILINE)
        assert number and int(number[1]) == status, name
        assert library().kvstore_status_string(status).decode() == name


@pytest.mark.parametrize(
    ("text", "number"), [("64MiB", 64 << 20), ("200 GB", 200 * 10**9), ("1.5KiB", 1536), (7, 7), ("12", 12)]
)
def test_sizes(text: str | int, number: int) -> None:
    from kvstore.sizes import byte_count

    assert byte_count(text) == number


@pytest.mark.parametrize("text", ["", "many", "12 parsecs", "-5", -5, 1.5, True, None])
def test_sizes_that_are_none(text: object) -> None:
    from kvstore.sizes import byte_count

    with pytest.raises((ValueError, TypeError)):
        byte_count(text)  # type: ignore[arg-type]


