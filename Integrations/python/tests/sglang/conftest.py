"""Lets SGLang's storage classes be imported without a GPU build of everything that SGLang needs."""

from __future__ import annotations

import importlib.util
import sys
import types


class Placeholder(types.ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


if importlib.util.find_spec("torchvision") is None:
    # SGLang's list of model configurations imports one that prepares images with torchvision, whose builds on PyPI
    # need CUDA. Nothing of it is called here. transformers must have seen first that it is not there.
    import transformers.image_processing_utils  # noqa: F401

    names = ("", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional", ".io")
    for name in names:
        module = Placeholder("torchvision" + name)
        module.__path__ = []
        sys.modules["torchvision" + name] = module
