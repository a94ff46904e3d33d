"""Hints of a request, for vLLM."""

from ..hints import Hints

__all__ = ["Hints"]
