"""Lets a whole SGLang run on a CPU: Python imports this in each of its processes, from PYTHONPATH."""

import contextlib
import os

if os.environ.get("KVSTORE_SGLANG_CPU"):
    # transformers decides first that torchvision is absent.
    with contextlib.suppress(ImportError):
        import transformers.utils  # noqa: F401
    import sglang_cpu  # noqa: F401
