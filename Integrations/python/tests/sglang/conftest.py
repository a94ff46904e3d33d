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

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

# The small model, and what changes fields of configurations, are those of the tests with vLLM.
sys.path.append(str(Path(__file__).parents[1] / "vllm"))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama of random weights."""
    from tiny_model import write_generation_config, write_model

    folder = tmp_path_factory.mktemp("models") / "one"
    write_model(folder, seed=1)
    write_generation_config(folder)
    return folder


@pytest.fixture(scope="session")
def published(small_model: Path) -> object:
    """SGLang's settings as a server publishes them in its processes, for the small model."""
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.runtime_context import get_context
    from sglang.srt.server_args import ServerArgs

    arguments = ServerArgs(
        model_path=str(small_model),
        device="cpu",
        skip_tokenizer_init=True,
        attention_backend="torch_native",
        dtype="bfloat16",
        context_length=4096,
        page_size=64,
        disable_cuda_graph=True,
    )
    get_context().set_server_args(arguments)
    return ModelConfig.from_server_args(arguments)
