"""What tells weights from others: by content, and where a large file is only sampled, by what nobody can set back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PREFIX

from kvstore import weights
from kvstore.weights import IdentityUnknownError, files_digest, weight_files

LARGE = weights._WHOLE_BYTES_MAX + (1 << 20)
COMMAND = PREFIX / "bin/kvstore"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVSTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/weights"


def write(path: Path, size: int, *, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = hashlib.sha256(str(seed).encode()).digest() * 32768
    path.write_bytes((unit * (size // len(unit) + 1))[:size])
    return path


def unsampled(size: int) -> int:
    """A place of a large file of which nothing is read."""
    places = sorted(
        int.from_bytes(hashlib.sha256(f"{size} {number}".encode()).digest()[:8], "little")
        % (size - weights._SAMPLE_BYTES)
        for number in range(weights._SAMPLES)
    )
    start, end = max(zip(places, places[1:], strict=False), key=lambda pair: pair[1] - pair[0])
    return (start + weights._SAMPLE_BYTES + end) // 2


def patch(file: Path, place: int) -> None:
    """Changes a few bytes in place, and sets the times back as `touch -r` does."""
    state = file.stat()
    with file.open("r+b") as opened:
        opened.seek(place)
        before = opened.read(8)
        opened.seek(place)
        opened.write(bytes(byte ^ 0xFF for byte in before))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("folder", ["model", "blobs"])
@pytest.mark.parametrize("size", [1 << 20, LARGE])
def test_a_patch_inside_whose_time_is_set_back(tmp_path: Path, folder: str, size: int) -> None:
    file = write(tmp_path / folder / "model.safetensors", size)
    before = files_digest([file])
    assert files_digest([file]) == before
    patch(file, unsampled(size) if size == LARGE else size // 2)
    assert files_digest([file]) != before


@pytest.mark.parametrize("size", [1 << 20, LARGE])
def test_a_patched_copy_with_the_times_of_the_original(tmp_path: Path, size: int) -> None:
    file = write(tmp_path / "model.bin", size)
    patched = tmp_path / "patched/model.bin"
    patched.parent.mkdir()
    shutil.copy2(file, patched)
    patch(patched, unsampled(size) if size == LARGE else size // 2)
    assert patched.stat().st_mtime_ns == file.stat().st_mtime_ns
    before = files_digest([file])
    # In place of the original, as an update comes.
    os.replace(patched, file)
    assert files_digest([file]) != before


def test_small_files_are_told_by_their_content_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a/model.safetensors", 1 << 20)
    copy = write(tmp_path / "b/model.safetensors", 1 << 20)
    os.utime(copy, (1, 1))
    assert files_digest([file]) == files_digest([copy])
    assert files_digest([file]) != files_digest([write(tmp_path / "c/model.safetensors", 1 << 20, seed=2)])
    assert files_digest([file]) != files_digest([write(tmp_path / "d/other.safetensors", 1 << 20)])


@pytest.mark.parametrize("prefix", ["", "sha256-"])
def test_a_name_counts_where_it_is_a_hash(tmp_path: Path, prefix: str) -> None:
    content = write(tmp_path / "content", LARGE)
    name = prefix + hashlib.sha256(content.read_bytes()).hexdigest()
    digests = []
    for cache in ("one", "other"):
        blob = tmp_path / cache / "models--m/blobs" / name
        blob.parent.mkdir(parents=True)
        shutil.copyfile(content, blob)
        link = tmp_path / cache / "models--m/snapshots/r/model.safetensors"
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
        digests.append(files_digest([link]))
    # Downloaded twice, it is one model.
    assert digests[0] == digests[1]
    # Elsewhere a name is a name.
    for folder in ("blobs2", "snapshots"):
        copies = []
        for number in range(2):
            copy = tmp_path / f"{number}" / folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(content, copy)
            copies.append(files_digest([copy]))
        assert copies[0] != copies[1]
    # What is no SHA-256 is none.
    copies = []
    for number in range(2):
        copy = tmp_path / f"{number}" / "blobs" / name[:-1]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, copy)
        copies.append(files_digest([copy]))
    assert copies[0] != copies[1]


def test_samples_lie_inside_and_at_places_of_the_size() -> None:
    places = []
    for size in (LARGE, LARGE + 1, 40 << 30):

        class File:
            def seek(self, place: int, size: int = size) -> None:
                assert 0 <= place < size
                places.append((size, place))

            def read(self, count: int) -> bytes:
                assert places[-1][1] + count <= places[-1][0]
                return b"x" * count

        weights._samples(File(), size)  # type: ignore[arg-type]
    by_size = [{place for at, place in places if at == size} for size in (LARGE, LARGE + 1, 40 << 30)]
    assert all(len(found) == weights._SAMPLES + 2 for found in by_size)
    # Both beginnings are read; no other place is the same.
    assert by_size[0] & by_size[1] == {0}
    # All over a large file.
    assert len({place >> 32 for place in by_size[2]}) >= 8


def test_a_file_that_is_written_to_meanwhile_has_no_digest(tmp_path: Path) -> None:
    file = write(tmp_path / "model.bin", 8 << 20)
    stop = threading.Event()

    def keep_writing() -> None:
        with file.open("r+b") as opened:
            while not stop.is_set():
                opened.seek(0)
                opened.write(os.urandom(8))
                opened.flush()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        with pytest.raises(IdentityUnknownError, match="written to"):
            for _ in range(200):
                files_digest([file])
    finally:
        stop.set()
        writer.join()


def test_parts_of_a_split_gguf(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"m-{number:05}-of-00003.gguf", 4096, seed=number) for number in (1, 2, 3)]
    write(tmp_path / "m-00001-of-00002.gguf", 4096)
    write(tmp_path / "n-00001-of-00003.gguf", 4096)
    for part in parts:
        assert weight_files(str(part)) == parts
    before = files_digest(weight_files(str(parts[0])))
    patch(parts[2], 100)
    assert files_digest(weight_files(str(parts[0]))) != before


def test_folders_are_read_in_the_order_of_their_names_bytes(tmp_path: Path) -> None:
    names = ["a-b/x.bin", "a.bin", "a/x.bin", "b.safetensors"]
    for name in names:
        write(tmp_path / name, 10)
    write(tmp_path / "config.json", 10)
    (tmp_path / "folder.bin").mkdir()
    assert weight_files(str(tmp_path)) == [tmp_path / name for name in names]
    assert weight_files(str(tmp_path / "nowhere")) == []


# ------------------------------------------------------------ a digest that was kept


def digest_by_command(path: Path) -> str:
    done = subprocess.run([COMMAND, "weights-digest", path, "--json"], check=True, capture_output=True, timeout=120)
    return str(json.loads(done.stdout)["weights_digest"])


pytestmark_command = pytest.mark.skipif(not COMMAND.exists(), reason="the command is not installed")


@pytestmark_command
def test_the_command_s_digest_is_the_package_s(tmp_path: Path, cache: Path) -> None:
    model = tmp_path / "model"
    files = [write(model / "model-1.safetensors", LARGE), write(model / "more/é.bin", 1000)]
    sampled = files_digest(weight_files(str(model)))
    kept = digest_by_command(model)
    assert files_digest(weight_files(str(model))).hex() == kept != sampled.hex()
    # A copy that was read whole is the same model; one that was not is told by itself.
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    assert files_digest(weight_files(str(copy))).hex() != kept
    assert digest_by_command(copy) == kept
    assert files_digest(weight_files(str(copy))).hex() == kept
    # It goes with the bytes.
    patch(files[0], unsampled(LARGE))
    assert files_digest(weight_files(str(model))).hex() != kept
    patch(files[0], unsampled(LARGE))
    assert digest_by_command(model) == kept


@pytestmark_command
def test_a_blob_is_what_was_read_and_not_what_it_is_called(tmp_path: Path) -> None:
    blob = write(tmp_path / "blobs" / hashlib.sha256(b"something else").hexdigest(), LARGE)
    named = files_digest([blob])
    digest_by_command(blob)
    assert files_digest([blob]) != named


@pytestmark_command
def test_records_that_are_not_believed(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path / "model.gguf", LARGE)
    sampled = files_digest([file])
    digest_by_command(file)
    kept = files_digest([file])
    (record,) = cache.glob("*.json")
    text = record.read_text()

    def believed(changed: str) -> bool:
        record.write_text(changed)
        return files_digest([file]) != sampled

    assert kept != sampled and believed(text)
    for wrong in ("", "{", "[]", "null", "{}", text[:-20], text.replace('"size"', '"sizes"'), text.replace("sha256", "md5")):
        assert not believed(wrong), wrong
    for name, value in json.loads(text).items():
        if name != "sha256":
            other = value + 1 if isinstance(value, int) else value + "x"
            assert not believed(json.dumps({**json.loads(text), name: other})), name
    for digest in ("0" * 63, "G" * 64, 7, None):
        assert not believed(json.dumps({**json.loads(text), "sha256": digest}))
    assert believed(text)
    # Who else may write it could give one model another's name: neither the package nor the command believes it.
    record.write_text(json.dumps({**json.loads(text), "sha256": "0" * 64}))
    record.chmod(0o666)
    assert files_digest([file]) == sampled
    assert digest_by_command(file) == kept.hex()
    assert record.read_text() == text
    assert files_digest([file]) == kept
    record.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(record, 12345, -1)
        assert files_digest([file]) == sampled


@pytest.fixture
def whole_seconds(tmp_path: Path) -> Iterator[Path]:
    """A file system whose times are whole seconds: two contents may have equal ones."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as made:
        made.truncate(64 << 20)
    commands = (["mkfs.ext4", "-q", "-I", "128", image], ["mount", "-o", "loop", image, folder])
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"no loop mount: {reason}")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=60)


@pytestmark_command
def test_where_times_tell_nothing_files_are_read_whole(whole_seconds: Path, cache: Path) -> None:
    file = write(whole_seconds / "model.gguf", LARGE)
    before = files_digest([file])
    assert digest_by_command(file) == before.hex()
    assert not list(cache.glob("*.json"))
    patch(file, unsampled(LARGE))
    assert files_digest([file]) != before
    assert digest_by_command(file) == files_digest([file]).hex()
