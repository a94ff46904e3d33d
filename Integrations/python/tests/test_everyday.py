"""What people who write Python expect: their own objects, `with`, truth, `await`, and errors that say what was expected."""

from __future__ import annotations

import asyncio
import gc
import mmap
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest
from conftest import REGION_BYTES, ROOT, TOKENS_PER_BLOCK, empty, identity, open_store, payloads

import kvstore


def prompt(blocks: int, first: int = 0) -> kvstore.Prompt:
    return kvstore.Prompt(range(first, first + blocks * TOKENS_PER_BLOCK))


def test_a_home_folder_and_short_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with kvstore.Store("~/cache", capacity="1G", host="16M") as store:
        assert store.path == tmp_path / "cache" and store.path.is_dir()
        assert store.stats()["disk_bytes_capacity"] == 1 << 30


def test_a_match_is_true_if_something_is_stored_and_releases_its_lease(
    store: kvstore.Store, namespace: kvstore.Namespace
) -> None:
    assert not namespace.match(prompt(4))
    namespace.offload(prompt(4), payloads(range(4)))
    with namespace.match(prompt(4)) as match:
        assert match and match.status and match.blocks == 4
        assert store.stats()["leases_active"] == 1
    assert store.stats()["leases_active"] == 0
    match.release()
    with namespace.session("s") as session, session.match(prompt(4)):
        assert store.stats()["leases_active"] == 1
    assert store.stats()["leases_active"] == 0
    later = namespace.match(prompt(4))
    store.close()
    later.release()


def test_truth_of_a_status() -> None:
    assert kvstore.Status.OK
    assert not any(bool(status) for status in kvstore.Status if status != kvstore.Status.OK)


def test_memory_that_may_only_be_read_is_offloaded(namespace: kvstore.Namespace, tmp_path: Path) -> None:
    whole = b"".join(payloads(range(1)))
    file = tmp_path / "kv"
    file.write_bytes(whole)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        pieces = [view[: REGION_BYTES[0]], view[REGION_BYTES[0] :]]
        assert namespace.offload(prompt(1), pieces).status
        with pytest.raises(ValueError, match="writable"):
            namespace.restore(prompt(1), pieces)
        for piece in pieces:
            piece.release()
        view.release()
    memory = empty(1)
    assert namespace.restore(prompt(1), memory).status and b"".join(memory) == whole


class Tensor:
    """As far as kvstore looks at one of torch."""

    class Device:
        type = "cpu"

        def __str__(self) -> str:
            return f"{self.type}:0"

    def __init__(self, size: int, device: str = "cpu", contiguous: bool = True) -> None:
        self.memory = array("H", bytes(size))
        self.device = Tensor.Device()
        self.device.type = device
        self.contiguous = contiguous

    def data_ptr(self) -> int:
        return self.memory.buffer_info()[0]

    def is_contiguous(self) -> bool:
        return self.contiguous

    def numel(self) -> int:
        return len(self.memory)

    def element_size(self) -> int:
        return 2


def test_tensors_are_taken_as_they_are(namespace: kvstore.Namespace) -> None:
    namespace.offload(prompt(1), payloads(range(1)))
    memory = [Tensor(size) for size in REGION_BYTES]
    assert namespace.restore(prompt(1), memory).status
    assert [tensor.memory.tobytes() for tensor in memory] == payloads(range(1))
    with pytest.raises(ValueError, match="cuda:0"):
        namespace.restore(prompt(1), [Tensor(size, "cuda") for size in REGION_BYTES])
    with pytest.raises(ValueError, match="contiguous"):
        namespace.restore(prompt(1), [Tensor(size, contiguous=False) for size in REGION_BYTES])


def test_torch_and_numpy(namespace: kvstore.Namespace) -> None:
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    written = [torch.arange(size // 4, dtype=torch.int32) for size in REGION_BYTES]
    tokens = kvstore.Prompt(torch.arange(TOKENS_PER_BLOCK))
    assert namespace.offload(tokens, written).status
    read = [numpy.zeros(size // 8, dtype=numpy.int64) for size in REGION_BYTES]
    assert namespace.restore(kvstore.Prompt(numpy.arange(TOKENS_PER_BLOCK)), read).status
    assert all((numpy.asarray(left).view(numpy.int64) == right).all() for left, right in zip(written, read, strict=True))
    with pytest.raises(ValueError, match="contiguous"):
        namespace.restore(tokens, [numpy.zeros((64, size), dtype=numpy.uint8)[:, 0] for size in REGION_BYTES])


def test_moves_are_awaited(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    async def both() -> tuple[kvstore.Transfer, kvstore.Transfer]:
        offloaded = await namespace.start_offload(prompt(8), payloads(range(8)))
        memory = empty(8)
        restored = await namespace.start_restore(prompt(8), memory)
        assert memory == payloads(range(8))
        return offloaded, restored

    offloaded, restored = asyncio.run(both())
    assert offloaded.status and offloaded.blocks_done == 8
    assert restored.status and restored.blocks_done == 8


def test_a_task_that_is_cancelled_leaves_its_memory_whole(namespace: kvstore.Namespace) -> None:
    namespace.offload(prompt(8), payloads(range(8)))

    async def given_up() -> None:
        task = asyncio.ensure_future(waiting(namespace.start_restore(prompt(8), empty(8))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def waiting(operation: kvstore.Operation) -> None:
        await asyncio.sleep(0)
        await operation

    for _ in range(20):
        asyncio.run(given_up())
    gc.collect()
    operation = namespace.start_restore(prompt(8), empty(8))
    assert operation.wait() == operation.poll() == operation.wait()
    operation.cancel()


def test_views_lend_what_is_stored(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    assert len(namespace.view(prompt(2))) == 0
    namespace.offload(prompt(2), payloads(range(2)))
    with namespace.view(prompt(2)) as view:
        assert view.status and len(view) == 2
        assert [bytes(view.region(block, region)) for block in range(2) for region in range(2)] == payloads(range(2))
        assert view.region(0).readonly
        with pytest.raises(IndexError, match="of 2 blocks"):
            view.region(2)
        assert store.stats()["host_bytes_lent"] > 0
    assert store.stats()["host_bytes_lent"] == 0
    with pytest.raises(ValueError, match="closed"):
        view.region(0)
    namespace.view(prompt(2))
    gc.collect()
    assert store.stats()["host_bytes_lent"] == 0


def test_prefetch_brings_blocks_into_memory(path: Path) -> None:
    with open_store(path) as store, store.namespace(identity()) as namespace:
        namespace.offload(prompt(4), payloads(range(4)))
    with open_store(path) as store, store.namespace(identity()) as namespace:
        assert namespace.prefetch(prompt(4)) == 4
        for _ in range(2000):
            if namespace.match(prompt(4), peek=True).blocks_host == 4:
                break
            time.sleep(0.005)
        assert namespace.match(prompt(4), peek=True).blocks_host == 4


def test_explain_says_where_and_why(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    assert namespace.explain(prompt(2)).cause == "nothing stored"
    namespace.offload(prompt(4), payloads(range(4)))
    store.flush()
    assert namespace.explain(prompt(4)).cause == "stored"
    edited = list(range(4 * TOKENS_PER_BLOCK))
    edited[20] = 99_999
    found = namespace.explain(kvstore.Prompt(edited))
    assert (found.cause, found.divergence_token, found.tokens_matched) == ("edited", 20, 16)
    assert str(found) and found.tokens_lost > 0 and found.left_time is None


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s, n: kvstore.Store(5), "path is text or a Path, not int"),
        (lambda s, n: s.namespace("m"), "kvstore.Identity, not str"),
        (lambda s, n: n.match([1, 2, 3]), r"kvstore.Prompt\(tokens\)"),
        (lambda s, n: n.restore(prompt(1), bytearray(10)), r"write \[memory\]"),
        (lambda s, n: n.restore(prompt(1), [5, 6]), "buffer protocol.*not int"),
        (lambda s, n: n.offload(prompt(1), ["text", "text"]), "not str"),
        (lambda s, n: kvstore.Prompt("text"), "tokens are numbers"),
        (lambda s, n: kvstore.Prompt([0.5]), "sequence of numbers"),
        (lambda s, n: kvstore.Identity(region_bytes=65536, tokens_per_block=16), "size of each region"),  # type: ignore[arg-type]
        (lambda s, n: identity(model_name=b"m"), "model_name is text, not bytes"),
        (lambda s, n: identity(salt="secret"), "salt is bytes, not str"),
        (lambda s, n: kvstore.Store("x", capacity=1.5), "number of bytes or text"),  # type: ignore[arg-type]
    ],
)
def test_wrong_types_say_what_was_expected(
    store: kvstore.Store, namespace: kvstore.Namespace, call: object, expected: str
) -> None:
    with pytest.raises(TypeError, match=expected):
        call(store, namespace)  # type: ignore[operator]


USER = '''
import asyncio
from pathlib import Path

import kvstore

with kvstore.Store(Path("s"), capacity="1G") as store:
    identity = kvstore.Identity(model_name="m", tokens_per_block=16, region_bytes=(4096,))
    with store.namespace(identity) as namespace, namespace.match(kvstore.Prompt([1, 2])) as match:
        blocks: int = match.blocks
        memory = [bytearray(4096)]
        done: kvstore.Transfer = namespace.restore(kvstore.Prompt([1, 2]), memory)

        async def restore() -> kvstore.Transfer:
            return await namespace.start_restore(kvstore.Prompt([1, 2]), memory)

        later: kvstore.Transfer = asyncio.run(restore())
        why: str = namespace.explain(kvstore.Prompt([1, 2])).message
        with namespace.view(kvstore.Prompt([1, 2])) as view:
            first: memoryview = view.region(0)
version: str = kvstore.__version__
'''


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_users_program_is_typed(tmp_path: Path, checker: str) -> None:
    pytest.importorskip(checker)
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "extraPaths": ["%s"]}' % (ROOT / "Integrations/python/src")
    )
    command = {"mypy": ["--strict", "--cache-dir", str(tmp_path / "mypy"), "user.py"], "pyright": ["user.py"]}[checker]
    done = subprocess.run(
        [sys.executable, "-m", checker, *command],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "Integrations/python/src"), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
