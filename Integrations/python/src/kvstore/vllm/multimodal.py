"""Digests of images and the like by what the model gets to see of them."""

from __future__ import annotations

import logging
import weakref
from typing import Any

from ..effective import Effective

logger = logging.getLogger("vllm.kvstore")


class FeatureDigests:
    """Digests of the processed inputs of requests.

    Not vLLM's identifiers: they are names that a client may give, or a counter that starts over with each process, and say
    nothing of how the processor was set up.
    """

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._warned = False

    def is_known(self, feature: Any) -> bool:
        """Whether this process has the feature's content."""
        if feature.data is None:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "kvstore: vLLM's scheduler does not get the content of %s inputs with this mm_processor_cache_type: "
                    "requests that have some are not cached",
                    feature.modality,
                )
            return False
        return bool(self.digest(feature))

    def digest(self, feature: Any) -> bytes:
        """The digest of a feature; empty if its content cannot be told. Made once for each that vLLM keeps."""
        key = id(feature.data)
        known = self._known.get(key)
        if known is None:
            effective = Effective({})
            known = effective.digest([feature.modality, feature.data])
            if effective.unnameable:
                known = b""
            try:
                weakref.finalize(feature.data, self._known.pop, key, None)
            except TypeError:
                return known
            self._known[key] = known
        return known
