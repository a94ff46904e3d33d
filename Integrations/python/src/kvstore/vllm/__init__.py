"""vLLM keeps its KV cache in a kvstore: `KVStoreConnector`, loaded by --kv-transfer-config.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "KVStoreConnector",
      "kv_connector_module_path": "kvstore.vllm", "kv_role": "kv_both",
      "kv_connector_extra_config": {"path": "/var/cache/kv", "disk_bytes": "200GiB"}}'

docs/engines/vllm.md tells what is stored, and how to see that it works. Importing this module needs vLLM.
"""

from .connector import KVStoreConnector
from .options import Options

__all__ = ["KVStoreConnector", "Options"]
