"""Vectors of documents, found by the documents' content."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from . import context
from .blocks import KIND_BYTES, Entry
from .canonical import digest
from .log import DivergenceError
from .scope import Level, Scope, seconds

if TYPE_CHECKING:
    from .store import AgentStore


class Embeddings:
    """The vectors of one model: each is kept under the SHA-256 of its document and of model, version and settings.

        vectors = Embeddings(agents, "text-embedding-3-small", embed, version="1", scope="global").get(documents)

    embed: makes vectors of a list of documents, in rows; called with those alone that are not stored, `batch` at a time. settings: what
    else changes a vector (dimensions, a prefix, a task). A document that was changed has another key, so no vector is out of date.
    """

    def __init__(
        self,
        agents: AgentStore,
        model: str,
        embed: Callable[[list[Any]], Any] | None = None,
        *,
        version: str = "",
        settings: Any = None,
        scope: Level = "user",
        ttl: float | str | None = None,
        dtype: Any = "float32",
        batch: int = 256,
    ) -> None:
        if batch < 1:
            raise ValueError("a batch has one document at least")
        self._agents, self._model, self._embed, self._batch = agents, model, embed, batch
        said = agents.policies.embeddings()
        self._scope: Level = said.get("scope", scope)
        self._ttl_seconds: float | None = said["ttl"] if "ttl" in said else seconds(ttl)
        self._bypass = bool(said.get("bypass", False))
        self._dtype = numpy.dtype(dtype).newbyteorder("<")
        if self._dtype.hasobject:
            raise TypeError("vectors are numbers")
        self._key = {
            "kvstore.agent": "embedding",
            "model": model,
            "version": version,
            "settings": settings,
            "dtype": self._dtype.str,
        }

    def _where(self) -> tuple[Scope, bytes]:
        now = context.current.get()
        scope = now.scope if now is not None and now.agents is self._agents else Scope()
        return scope, digest({**self._key, "scope": scope.key(self._scope)})

    def keys(self, documents: Sequence[str | bytes]) -> list[bytes]:
        """The digests that the documents' vectors are found by."""
        return self._keys(documents, self._where()[1])

    @staticmethod
    def _keys(documents: Sequence[str | bytes], settings: bytes) -> list[bytes]:
        sha256 = hashlib.sha256
        # Text and bytes are told apart: a model may read them in two ways.
        return [
            sha256(settings + b"t" + sha256(document.encode("utf-8", "surrogatepass")).digest()).digest()
            if isinstance(document, str)
            else sha256(settings + b"b" + sha256(document).digest()).digest()
            for document in documents
        ]

    def look(self, documents: Sequence[str | bytes]) -> list[Any]:
        """The vectors that are stored, and None for the other documents."""
        scope, settings = self._where()
        matrix, missing = self._look(self._keys(documents, settings), scope)
        absent = set(missing)
        return [None if matrix is None or index in absent else matrix[index] for index in range(len(documents))]

    def _look(self, keys: list[bytes], scope: Scope) -> tuple[Any, list[int]]:
        """The stored vectors in the rows of a matrix, and the rows that have none; None without any."""
        if self._bypass or not keys:
            return None, list(range(len(keys)))
        blocks = self._agents.blocks(scope.owner(self._scope))
        dtype = self._dtype
        matrix: Any = None
        missing = []

        def take(index: int, content: memoryview | bytes) -> None:
            nonlocal matrix
            size, rest = divmod(len(content), dtype.itemsize)
            if matrix is None and not rest:
                matrix = numpy.empty((len(keys), size), dtype)
            if rest or size != matrix.shape[1]:
                missing.append(index)
            else:
                matrix[index] = numpy.frombuffer(content, dtype)

        for index in blocks.get_many(b"".join(keys), take):
            entry = blocks.get(keys[index])
            if entry is None:
                missing.append(index)
            else:
                take(index, entry.content)
        return matrix, missing

    def get(self, documents: Sequence[str | bytes]) -> Any:
        """The vectors of all documents, one in each row; those that are not stored are made, and stored."""
        if isinstance(documents, (str, bytes)):
            raise TypeError(f"a list of documents, not one {type(documents).__name__}")
        now = context.current.get()
        run = now.run if now is not None and now.agents is self._agents else None
        scope, settings = self._where()
        keys = self._keys(documents, settings)
        fresh = now is not None and now.fresh and now.agents is self._agents
        if fresh and not (run and run.is_replay):
            matrix, absent = None, list(range(len(keys)))
        else:
            matrix, absent = self._look(keys, scope)
        missing: dict[bytes, list[int]] = {}
        for index in sorted(absent):
            missing.setdefault(keys[index], []).append(index)
        self._agents.metrics.add("embedding", self._model, "hit", len(keys) - len(absent))
        if missing:
            call = run.recorder.call(self._model) if run else ""
            if run is not None and run.is_replay:
                raise DivergenceError(call, "vectors", "absent", f"{len(missing)} of {len(keys)} documents")
            matrix = self._make(documents, missing, matrix, scope)
        if run is not None:
            run.recorder.note(
                "embedding",
                "stored" if missing else "hit",
                self._model,
                key=hashlib.sha256(b"".join(keys)).digest(),
                reason=f"{len(keys)} documents, {len(missing)} made",
            )
        return numpy.empty((0, 0), self._dtype) if matrix is None else matrix

    def _make(
        self, documents: Sequence[str | bytes], missing: dict[bytes, list[int]], matrix: Any, scope: Scope
    ) -> Any:
        if self._embed is None:
            raise LookupError(f"{len(missing)} documents have no stored vector, and there is no `embed` to make them")
        blocks = self._agents.blocks(scope.owner(self._scope))
        todo = list(missing)
        for start in range(0, len(todo), self._batch):
            part = todo[start : start + self._batch]
            began = time.monotonic()
            vectors = numpy.asarray(self._embed([documents[missing[key][0]] for key in part]), dtype=self._dtype)
            if vectors.ndim != 2 or len(vectors) != len(part):
                raise ValueError(f"`embed` was given {len(part)} documents, and answered an array of shape {vectors.shape}")
            if matrix is None:
                matrix = numpy.empty((len(documents), vectors.shape[1]), self._dtype)
            elif vectors.shape[1] != matrix.shape[1]:
                raise ValueError(f"`embed` answered vectors of {vectors.shape[1]} numbers, and others have {matrix.shape[1]}")
            took = (time.monotonic() - began) / len(part)
            for key, vector in zip(part, vectors, strict=True):
                matrix[missing[key]] = vector
                outcome = "bypassed"
                if not self._bypass:
                    if blocks.peek(key):
                        blocks.forget(key)
                    entry = Entry(vector.tobytes(), KIND_BYTES, {"seconds": round(took, 6)})
                    kept = blocks.put(key, entry, ttl_seconds=self._ttl_seconds, compress=False)
                    outcome = "stored" if kept else "refused"
                self._agents.metrics.count("embedding", self._model, outcome)
        self._agents.store.flush()
        return matrix


__all__ = ["Embeddings"]
