"""The stores, in the order of the report."""

from __future__ import annotations

from ..peer import Peer
from .files import Files, SyncedFiles
from .kvstore import KVStore
from .lmcache_l2 import LMCacheFS, LMCacheFSNative, LMCacheFSNativeDirect, LMCacheRawBlock
from .lmcache_local import LMCacheCPU, LMCacheDisk, LMCacheDiskDirect
from .mooncake import Mooncake, MooncakeSSD
from .native import LMDB, BlobDB
from .redis_server import Redis, RedisFile
from .sglang import HiCacheFile, RadixTree
from .vllm import VLLMFileTier, VLLMPrefixCache

PEERS: tuple[type[Peer], ...] = (
    KVStore,
    SyncedFiles,
    LMDB,
    BlobDB,
    RedisFile,
    Files,
    HiCacheFile,
    VLLMFileTier,
    LMCacheFS,
    LMCacheFSNative,
    LMCacheFSNativeDirect,
    LMCacheDisk,
    LMCacheDiskDirect,
    LMCacheRawBlock,
    MooncakeSSD,
    LMCacheCPU,
    Mooncake,
    Redis,
    RadixTree,
    VLLMPrefixCache,
)


def by_name(name: str) -> type[Peer]:
    return next(peer for peer in PEERS if peer.name == name)
