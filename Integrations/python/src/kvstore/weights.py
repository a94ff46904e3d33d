"""What tells the weights of a model from others, without reading all of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SAMPLE_BYTES = 1 << 16


class IdentityUnknownError(ValueError):
    """Something that changes the bytes of the KV cannot be told."""


def weight_files(model: str, revision: str | None = None) -> list[Path]:
    """The weight files of a folder, a file, or a model in the Hugging Face cache; none if they are not there."""
    path = Path(model)
    if path.is_file():
        return [path]
    if not path.is_dir():
        try:
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except Exception:  # whatever that library raises, the files are not there
            return []
    return sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())


def files_digest(files: list[Path]) -> bytes:
    """A digest of the name, size, first and last bytes of every file.

    And of its hash where the Hugging Face cache names it by that, else of its time of change: a file that was edited in
    place is another one, at the price that a copy is too.
    """
    digest = hashlib.sha256()
    for file in files:
        real = file.resolve()
        state = real.stat()
        mark = real.name if real.parent.name == "blobs" else str(state.st_mtime_ns)
        digest.update(json.dumps([file.name, state.st_size, mark]).encode())
        with real.open("rb") as opened:
            digest.update(opened.read(_SAMPLE_BYTES))
            opened.seek(max(0, state.st_size - _SAMPLE_BYTES))
            digest.update(opened.read(_SAMPLE_BYTES))
    return digest.digest()
