/* kvstore.h — the C interface of kvstore, a persistent store for the KV cache of LLM inference
 * servers.
 *
 * An engine *offloads* the KV blocks that it computed and *restores* the longest stored prefix of
 * its next prompt instead of computing it again: after a pause, an eviction, a restart, in another
 * process.
 *
 * Terms. A *block* is the KV of `tokens_per_block` consecutive tokens over all layers. Its payload
 * is an ordered list of *regions* (for example layer 7's K), whose byte counts the *namespace*
 * fixes. A block's identity is its whole prefix: the namespace, all token ids up to its end, and
 * any extra bytes. Only full blocks are stored.
 *
 * Rules that hold for every function:
 *  - Thread-safe unless stated otherwise. A handle used after it was closed returns
 *    KVSTORE_E_BAD_HANDLE, never a crash. A handle used in a child after fork() returns
 *    KVSTORE_E_FORKED.
 *  - Status: 0 success, > 0 an outcome that callers should expect occasionally, < 0 an error. After
 *    an error, kvstore_last_error_message() of the same thread says what to do.
 *  - Memory passed in belongs to the caller and is not accessed after the call has returned, except
 *    where a function is documented to borrow it.
 *  - Structs begin with `struct_size`: set it to sizeof. Fields are only ever added at the end, and
 *    a field that an older caller does not know takes its default. Unknown flags are refused.
 *    Those of an array all have the same `struct_size`, not above that of the library's version.
 *  - No signal handler, no exit, and no callback except the copy function of an engine that
 *    attaches a device of its own: the process that links the store never goes down because of it.
 *    (One limit: a page fault on a truncated or failing catalog file, or on one of our files in
 *    /dev/shm that a process of the same user truncates, is a signal that no library can handle
 *    gracefully.)
 *
 * Compiles as C99 and C++17. Licence: Apache-2.0. */
#ifndef KVSTORE_H
#define KVSTORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- version and status */

#define KVSTORE_VERSION_MAJOR 0
#define KVSTORE_VERSION_MINOR 1
#define KVSTORE_VERSION_PATCH 0
/* The version of this header: major × 10^6 + minor × 10^3 + patch. */
#define KVSTORE_VERSION 1000u

typedef int32_t kvstore_status_t;

#define KVSTORE_OK 0
/* Outcomes: nothing is wrong. */
#define KVSTORE_MISS 1           /* fewer blocks than asked for are stored (or passed their
                                  * checks) */
#define KVSTORE_BUSY 2           /* the deadline passed before the store could take the work; try
                                  * later */
#define KVSTORE_FULL 3           /* no space: everything evictable is leased, pinned or in use */
#define KVSTORE_PARENT_MISSING 4 /* the block before the first one offered is not stored */
#define KVSTORE_LAPPED 5         /* events between the cursor and the oldest one kept are gone:
                                  * start over */
#define KVSTORE_RUNNING 6        /* the operation has not finished: its memory stays borrowed */
#define KVSTORE_DECLINED 7       /* blocks were not admitted (config.admission) and not stored */
/* Errors. */
#define KVSTORE_E_INVALID_ARGUMENT (-1)
#define KVSTORE_E_BAD_HANDLE (-2)       /* NULL, closed, or of another kind */
#define KVSTORE_E_BUFFER_TOO_SMALL (-3) /* a region does not fit; `length` of its span says how many
                                         * bytes */
#define KVSTORE_E_IO (-4)               /* an I/O error of the system; the message names the file */
#define KVSTORE_E_NO_SPACE (-5)         /* the file system is full, or a disk quota is used up */
#define KVSTORE_E_CORRUPT (-6)          /* the store's own files are damaged */
#define KVSTORE_E_VERSION (-7)          /* the store has another format version */
#define KVSTORE_E_LOCKED (-8)           /* the catalog cannot be shared with its current holder */
#define KVSTORE_E_OUT_OF_MEMORY (-9)
#define KVSTORE_E_FORKED (-10)          /* the handle was opened before fork(); open it in the
                                         * child */
#define KVSTORE_E_INTERNAL (-11)        /* an invariant failed: the store returns only misses from
                                         * now on */
#define KVSTORE_E_READ_ONLY (-12)       /* the store was opened with KVSTORE_OPEN_READ_ONLY */
#define KVSTORE_E_IDENTITY (-13)        /* two identity records with one hash: refused */
#define KVSTORE_E_NOT_A_STORE (-14)     /* the path holds something else */

/* The version of the loaded library, to compare with KVSTORE_VERSION. */
uint32_t kvstore_version(void);

/* The name of a status ("KVSTORE_MISS"). Static, never NULL. */
const char *kvstore_status_string(kvstore_status_t status);

/* What went wrong in this thread's last failed call, and what to do about it. Per thread, never
 * NULL, valid until this thread's next kvstore call that fails. Holds no prompt, no token, no
 * secret. */
const char *kvstore_last_error_message(void);

/* ---------------------------------------------------------------- store */

typedef struct kvstore kvstore_t;                     /* opaque handle (an id, not an address) */
typedef struct kvstore_namespace kvstore_namespace_t; /* likewise */
typedef struct kvstore_operation kvstore_operation_t; /* likewise */
typedef struct kvstore_view kvstore_view_t;           /* likewise */
typedef struct kvstore_reservation kvstore_reservation_t; /* likewise */
typedef struct kvstore_device kvstore_device_t;       /* likewise */
typedef struct kvstore_session kvstore_session_t;         /* likewise */

#define KVSTORE_OPEN_READ_ONLY 1u   /* match and restore only; the directory is not changed */
#define KVSTORE_OPEN_BUFFERED_IO 2u /* never use O_DIRECT, go through the page cache */

#define KVSTORE_ADMIT_ALWAYS 0u
#define KVSTORE_ADMIT_SECOND_TOUCH 1u /* blocks offered for the second time within a bounded
                                       * history: most blocks are used only once */
#define KVSTORE_ADMIT_ADAPTIVE 2u     /* everything while there is space, while a sixth of what is
                                       * stored is reused in time, or where two thirds of the prompt
                                       * are known; otherwise as SECOND_TOUCH */

#define KVSTORE_EVICTION_LRU 0u     /* least recently used; also what a struct of zeros asks for */
#define KVSTORE_EVICTION_DENSITY 1u /* evict the block with the fewest expected hits per second of
                                     * residency, learned online; falls back to LRU until enough
                                     * reuse was seen, and for a while where LRU finds more. The
                                     * newest 64th of the blocks is never evicted by it */

#define KVSTORE_REMOTE_WRITES_REUSED 0u /* blocks that a second request used */
#define KVSTORE_REMOTE_WRITES_ALL 1u    /* all, once they are durable */
#define KVSTORE_REMOTE_WRITES_OFF 2u    /* none: what others sent is read */

#define KVSTORE_REMOTE_ENCODING_RAW 0u    /* payloads as they are */
#define KVSTORE_REMOTE_ENCODING_FRAMES 1u /* losslessly compressed, where that is shorter; what
                                           * others sent is read either way */

typedef struct {
  uint32_t struct_size;
  uint32_t flags; /* KVSTORE_OPEN_* */
  /* The store's folder; it is created (0700) when absent. UTF-8, NUL-terminated. */
  const char *path;
  /* Upper bound on the bytes on disk, metadata included. Default 10 GiB, at least 64 MiB (of which
   * the catalog takes 32 MiB unless catalog_bytes says less). A store that is larger comes back to
   * it in the background, in the order of eviction; leases and pins win. Where several processes
   * have the store open, the largest of their capacities counts. */
  uint64_t capacity_bytes;
  /* The part of `capacity_bytes` that the catalog (LMDB) may use. 0: a sixteenth, at least 32 MiB,
   * at most 1 TiB. Raise it when payloads are small, since those are stored in the catalog. Fixed
   * when the store is created. */
  uint64_t catalog_bytes;
  /* Bytes of the host tier: the page-aligned arena in RAM that offloads are copied into and
   * restores are read into. Default 256 MiB; kvstore_namespace_open refuses a namespace if fewer
   * than four of its blocks fit. */
  uint64_t host_bytes;
  /* Payloads of at most this many bytes are stored in the catalog instead of a slot file. Default
   * 16 KiB. A namespace keeps the choice that was made when it was created. */
  uint64_t inline_payload_bytes_max;
  /* How long an offload may wait for space in the host tier before it returns KVSTORE_BUSY. Default
   * 10 s. */
  uint64_t offload_timeout_nanoseconds;
  /* Offloaded blocks are written at once and synced after this long at the latest. Default
   * 20 ms. */
  uint64_t commit_interval_nanoseconds;
  /* How long open, close, namespace_open and forget may wait for other processes: writers take
   * turns, and one that is stopped while it commits (SIGSTOP, a debugger) keeps the others waiting.
   * Default 30 s. */
  uint64_t wait_timeout_nanoseconds;
  /* Size of the archive tier, in addition to capacity_bytes: blocks evicted from disk are first
   * compressed losslessly and moved there, and promoted when they are used again. 0 (the default):
   * no archive; otherwise at least 64 MiB. */
  uint64_t archive_bytes;
  /* A folder for the archive, for example on a larger and slower disk; NULL: in the store's folder.
   * `kvstore set archive-path` moves it later: the store's folder keeps a symbolic link to it.
   * While the link's target is missing (its disk is not mounted), lookups do not return the blocks
   * there, and they may be stored again. An archive belongs to one store: a copy of the store's
   * folder is refused (E_LOCKED) until it is opened with archive_bytes 0 or an archive of its own.
   */
  const char *archive_path;
  /* Which new blocks are stored; an offload returns KVSTORE_DECLINED for the others and keeps
   * nothing of them. */
  uint32_t admission; /* KVSTORE_ADMIT_*; default all */
  uint32_t reserved;  /* must be 0 */
  /* Write budget per day, averaged, of which up to a 24th may be spent at once: new blocks beyond
   * it are declined, and archived blocks are not promoted. 0 (the default): unlimited. */
  uint64_t write_bytes_per_day;
  /* Which of the evictable blocks of the lowest priority are evicted first. What is learned is kept
   * in RAM (at most about 60 bytes for each block that the store has room for, or a few MB) and
   * starts afresh with each process. */
  uint32_t eviction_policy; /* KVSTORE_EVICTION_*; default density */
  uint32_t reserved2;       /* must be 0 */
  /* A tier outside this machine, which other stores share (docs/remote.md): where it is, for
   * example "redis://host:6379" or "rediss://host:6379" for TLS, without a password. NULL (the
   * default) or empty: none, and nothing below is looked at. No call waits for it, and whatever it
   * does is a miss. */
  const char *remote_url;
  const char *remote_credentials_file; /* 0600; NULL: none */
  const char *remote_ca_file; /* certificates of those who may vouch for it; NULL: the system's */
  /* A file (0600) of 32 to 4096 bytes, the same on all machines: chunks carry a code made with it,
   * and namespaces with a salt go there too. NULL: whoever can write there must be trusted, and
   * namespaces with a salt stay local. */
  const char *remote_key_file;
  uint32_t remote_writes; /* KVSTORE_REMOTE_WRITES_*; default reused */
  uint32_t remote_match;  /* 1: every match that is no peek may look there; 0 (the default): those
                           * with KVSTORE_MATCH_REMOTE */
  uint64_t remote_write_bytes_per_day; /* as write_bytes_per_day, for what is sent there */
  /* How long what was sent lives there, unless its blocks end before. 0: until it is evicted. */
  uint64_t remote_time_to_live_seconds;
  uint64_t remote_look_up_timeout_nanoseconds;  /* for a round of questions; default 250 ms */
  uint64_t remote_transfer_timeout_nanoseconds; /* for a few chunks; default 2 s */
  uint32_t remote_encoding; /* KVSTORE_REMOTE_ENCODING_*; default raw */
  /* 1: blocks that are about to leave disk and archive by eviction are sent as well; what cannot be
   * sent before they leave is counted. 0: the default. */
  uint32_t remote_demotes;
} kvstore_config_t;

/* Fills *config with the defaults. Pass sizeof(kvstore_config_t). Returns KVSTORE_OK, or
 * KVSTORE_E_INVALID_ARGUMENT (config NULL, or a size that no version has had). */
kvstore_status_t kvstore_config_init(kvstore_config_t *config, size_t struct_size);

/* Opens the store in config->path, creating it when absent, and sets *store_out. Blocks on disk for
 * a few milliseconds, whatever the size of the store. Several handles, threads and processes may
 * have one store open; two opens in one process share everything, with the settings of the first.
 * While it is open, it uses about 1 MiB of /dev/shm, which all its processes must share
 * (containers: share the PID namespace and the IPC mode, docs/containers.md). Once the store is
 * open, neither config->path nor the working directory matters: a store whose folder is removed,
 * moved or replaced accepts no more blocks (E_IO, from kvstore_flush at the latest) but still
 * restores what it had.
 * Returns OK, E_INVALID_ARGUMENT, E_IO (also for a file that is a symbolic link, no regular file,
 * or another user's), E_NO_SPACE, E_CORRUPT, E_VERSION, E_LOCKED (a process in another PID
 * namespace or with another /dev/shm has it open, the reader table is full, the archive is another
 * store's, or a process that is opening the store or holds its write lock made no progress within
 * wait_timeout_nanoseconds), E_NOT_A_STORE, E_OUT_OF_MEMORY. */
kvstore_status_t kvstore_open(const kvstore_config_t *config, kvstore_t **store_out);

/* Flushes, then closes the handle and its namespaces and operations. NULL is a no-op (OK). Blocks
 * until what was offloaded is durable, at most wait_timeout_nanoseconds. Calls under way in other
 * threads finish first; unfinished operations are cancelled, and nothing accesses the memory they
 * borrowed after the close has returned; views and reservations end. The leases of this process end
 * with the last handle of the process. Returns OK, E_BAD_HANDLE, E_FORKED, BUSY (another process
 * holds the catalog and made no progress in time: the handle is closed, and the rest is written in
 * the background once it does; a kvstore_open of the same path in the meantime shares that store),
 * or the error that prevented blocks from being written (the handle is closed nevertheless). */
kvstore_status_t kvstore_close(kvstore_t *store);

typedef struct {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t blocks_durable;        /* offloaded since the last flush and durable now */
  uint64_t blocks_dropped_full;   /* not kept: nothing could be evicted for them */
  uint64_t blocks_dropped_parent; /* not kept: their parent was removed before they were written */
  uint64_t blocks_dropped_error;  /* not kept: writing failed, see dropped_errno */
  uint64_t blocks_dropped_quota;      /* not kept: their namespace is over its quota */
  uint64_t blocks_dropped_evicted;    /* evicted again since then; not counted as durable */
  uint64_t blocks_dropped_incomplete; /* not kept: some of their regions never arrived */
  int32_t dropped_errno; /* errno of the last failed write; 0 = no system error */
  uint32_t reserved2;
} kvstore_flush_result_t;

/* Waits until every offload that has returned OK in this process is durable: its bytes, then its
 * catalog entry, synced in that order. `result` (may be NULL) covers the blocks that were offloaded
 * through this handle since its last flush, whoever flushed in between; a block that several
 * handles offered before it was durable is reported to each of them. Blocks that were already
 * durable when they were offered are not counted. `timeout_nanoseconds` 0 waits without a limit,
 * and may do the writing on the calling thread. Returns OK (also when blocks were dropped: read
 * `result`), BUSY (deadline), E_IO or E_NO_SPACE (blocks of this handle could not be written;
 * `result` is filled then too; E_IO also once the store's folder was removed, moved or replaced),
 * E_BAD_HANDLE, E_FORKED, E_READ_ONLY, E_INTERNAL. */
kvstore_status_t kvstore_flush(kvstore_t *store, uint64_t timeout_nanoseconds,
                               kvstore_flush_result_t *result);

#define KVSTORE_IO_NONE 0u     /* no slot file has been opened yet */
#define KVSTORE_IO_DIRECT 1u   /* O_DIRECT */
#define KVSTORE_IO_BUFFERED 2u /* through the page cache, on request or because the file system has
                                * no O_DIRECT */

/* Counters start when this process opens the store; sizes are current. */
typedef struct {
  uint32_t struct_size;
  uint32_t io_path; /* KVSTORE_IO_*: the I/O path actually in use */
  /* lookups */
  uint64_t match_calls, match_tokens_asked, match_tokens_found, match_blocks_found;
  uint64_t hashes_computed; /* block keys computed; a warm match computes none */
  /* the index in RAM */
  uint64_t index_nodes, index_blocks, index_bytes;
  /* restore */
  uint64_t blocks_restored_host, blocks_restored_disk, restored_bytes;
  uint64_t misses_absent, misses_stale, misses_corrupt;
  /* offload */
  uint64_t blocks_offloaded, blocks_deduplicated, offloaded_bytes;
  uint64_t blocks_dropped_full, blocks_dropped_parent, blocks_dropped_error, key_collisions;
  /* durable state of the whole store */
  uint64_t blocks_stored, payload_bytes_stored;
  uint64_t disk_bytes_capacity, disk_bytes_used; /* physical limit and use, metadata included */
  uint64_t catalog_bytes_capacity, catalog_bytes_used;
  uint64_t host_bytes_capacity, host_bytes_used;
  uint64_t blocks_evicted, blocks_forgotten, blocks_quarantined;
  uint64_t leases_active;
  /* endurance */
  uint64_t disk_bytes_written, disk_bytes_read; /* of slot files */
  uint64_t syncs; /* of slot files, and two for each commit of the catalog */
  uint64_t catalog_commits;
  uint64_t poisoned; /* 1 after a failed invariant: only misses */
  /* per tier: blocks found by matches, bytes copied by restores, measured bandwidth (0 before the
   * first) */
  uint64_t match_blocks_host, match_blocks_disk;
  uint64_t restored_bytes_host, restored_bytes_disk;
  uint64_t bytes_per_second_host, bytes_per_second_disk;
  /* estimated and measured duration of all restores whose bandwidth was known beforehand */
  uint64_t restore_nanoseconds_estimated, restore_nanoseconds_measured;
  uint64_t blocks_prefetched;
  uint64_t host_bytes_lent; /* of the host tier: held by views and reservations */
  /* purged slots: overwritten by this process; in the whole store, still to be overwritten */
  uint64_t slots_erased, slots_erase_pending;
  uint64_t blocks_expired;      /* removed because their TTL had passed */
  uint64_t blocks_refused_full; /* refused by offloads with KVSTORE_FULL: everything is leased or
                                 * pinned */
  uint64_t pins_active;
  /* the archive: physical limit and use (0 without one), bytes of its slot files written and
   * read */
  uint64_t archive_bytes_capacity, archive_bytes_used, archive_bytes_written, archive_bytes_read;
  /* moved from disk to the archive by this process: blocks, their payload, its size as stored; and
   * moved back */
  uint64_t blocks_demoted, demoted_bytes, demoted_bytes_stored;
  uint64_t blocks_promoted, promoted_bytes;
  uint64_t match_blocks_archive, blocks_restored_archive, restored_bytes_archive, bytes_per_second_archive;
  /* Of all attached devices: slots; slots used by sequences; slots that cache a block no sequence
   * uses. */
  uint64_t device_slots_capacity, device_slots_used, device_slots_cached;
  uint64_t device_blocks_shared;   /* blocks that kvstore_sequence_restore found on the device */
  uint64_t device_copies_on_write; /* shared last blocks that were copied before a sequence grew */
  uint64_t device_bytes_in, device_bytes_out; /* copied to and from devices */
  uint64_t blocks_declined; /* not admitted */
  uint64_t misses_unreadable; /* reads that failed: the slot file was truncated or removed, or the
                               * disk returned an error */
  /* The remote tier (zeros without one): look-ups, rounds of questions that they took; chunks that
   * were fetched, sent, there already; their bytes; blocks that were new here; reads that brought
   * nothing, chunks that were to be sent and were not (kvstore_metrics_text has the causes);
   * objects removed there since they were not sound; purges that it has not confirmed; 1 while it
   * is left alone after failures. */
  uint64_t remote_look_ups, remote_look_up_rounds;
  uint64_t remote_chunks_fetched, remote_chunks_sent, remote_chunks_existed;
  uint64_t remote_bytes_fetched, remote_bytes_sent, remote_blocks_fetched;
  uint64_t remote_misses, remote_drops, remote_objects_removed, remote_purges_pending;
  uint64_t remote_left_alone;
} kvstore_stats_t;

/* Fills *stats. Set stats->struct_size first. Does not block on disk. Returns OK, E_BAD_HANDLE,
 * E_FORKED, E_INVALID_ARGUMENT. */
kvstore_status_t kvstore_stats(kvstore_t *store, kvstore_stats_t *stats);

/* The counters and sizes in Prometheus' text format, version 0.0.4, NUL-terminated, for an engine
 * to serve among its own metrics: histograms kvstore_restore_seconds (by tier) and
 * kvstore_offload_seconds, kvstore_..._total counters, sizes by tier and namespace (its number and
 * model name; nothing about a salt). *length_out gets the length without the NUL, also when it does
 * not fit (E_BUFFER_TOO_SMALL); `text` may be NULL when capacity is 0. 64 KiB are enough for some
 * dozens of namespaces. Does not block on disk. Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE,
 * E_FORKED, E_BUFFER_TOO_SMALL, E_IO, E_CORRUPT. */
kvstore_status_t kvstore_metrics_text(kvstore_t *store, char *text, size_t capacity, size_t *length_out);

/* The host tier's memory: one page-aligned mapping of *byte_count bytes at *base, for the engine to
 * pin or register with its device (cudaHostRegister), so that copies from views run at full speed.
 * Access it only through views and reservations. Valid until the last kvstore_close of this store
 * in the process; unregister it before.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED. */
kvstore_status_t kvstore_host_memory(kvstore_t *store, void **base, size_t *byte_count);

/* ---------------------------------------------------------------- namespace */

typedef struct {
  const void *data;
  size_t length;
} kvstore_bytes_t;

/* How blocks are identified. */
#define KVSTORE_IDENTITY_TOKENS 0u /* by their token ids (the normal case) */
#define KVSTORE_IDENTITY_DIGEST 1u /* by the caller's own chained digest of >= 256 bits, compared in
                                    * full */

#define KVSTORE_NAMESPACE_REGIONS_VARIABLE 1u /* region_bytes are maxima: opaque blobs of variable
                                               * length */
#define KVSTORE_NAMESPACE_EXISTING 2u         /* not part of the identity: MISS when it is absent;
                                               * nothing is written */

/* A *KV cache group*: neighbouring regions of each block, of the layers that share one kind of
 * attention. Order the payload so that the layers of each kind are contiguous. Blocks are stored
 * whole, since a later prompt may end at any of them; of a group with a window, a restore copies
 * only what the end of the prefix needs (kvstore_restore). */
typedef struct {
  uint32_t first_region, region_count; /* groups are in the order of their regions, which do not
                                        * overlap */
  uint32_t window_tokens; /* the next token attends to this many tokens before it; 0 = to all of
                           * them */
  uint32_t reserved;      /* must be 0 */
} kvstore_group_t;

/* Everything that changes the bytes of a block, or who may see it. Records that differ in any field
 * are different namespaces and never share a block. Strings are UTF-8 and may be NULL (= empty). */
typedef struct {
  uint32_t struct_size;
  uint32_t flags;         /* KVSTORE_NAMESPACE_* */
  uint32_t identity_mode; /* KVSTORE_IDENTITY_* */
  uint32_t tokens_per_block;
  uint32_t digest_bytes; /* digest mode: 32 ... 64, a multiple of 4; else 0 */
  uint32_t region_count; /* 1 ... 4096 */
  const uint64_t *region_bytes; /* region_count byte counts, in payload order */

  const char *model_name;
  kvstore_bytes_t weights_digest;   /* of the weights as loaded */
  kvstore_bytes_t adapter_digest;   /* LoRA etc.: of its content, not its name */
  kvstore_bytes_t tokenizer_digest;
  const char *kv_dtype;        /* "fp16", "bf16", "fp8_e4m3", "int8", "q8_0", ... */
  const char *kv_quantization; /* scales and granularity, "" for none */
  const char *layout;          /* order of layer, K/V, head, token, head dimension in the payload */
  const char *rope;            /* RoPE parameters, as the engine prints them */
  const char *engine_format;   /* engine, version, backend, instruction set: anything that changes
                                * the bytes */
  kvstore_bytes_t engine_bytes; /* anything else that must match */
  uint32_t layer_count, kv_head_count, head_size;
  uint32_t tensor_parallel_rank, tensor_parallel_size;
  uint32_t pipeline_parallel_rank, pipeline_parallel_size;
  uint32_t context_parallel_rank, context_parallel_size;
  /* A tenant's secret. Only a keyed digest of it is stored. */
  kvstore_bytes_t salt;
  /* The most extra bytes that one block may carry. Default 256. */
  uint32_t extra_bytes_max;
  uint32_t reserved;
  /* Limits are not part of the identity: opening with different ones changes them, durably, for
   * everyone who has the namespace open. KVSTORE_KEEP (the default of
   * kvstore_namespace_config_init) leaves a limit unchanged. */
  uint64_t quota_bytes; /* maximum slot bytes on disk (payload bytes where payloads are stored in
                         * the catalog); over it the namespace evicts its own blocks; 0 = only the
                         * store's limit */
  uint64_t ttl_nanoseconds; /* default TTL of blocks offloaded without one; 0 = until evicted */
  uint32_t ttl_kind;        /* KVSTORE_TTL_*; used only when ttl_nanoseconds is neither 0 nor
                             * KVSTORE_KEEP */
  uint32_t reserved2;
  /* Part of the identity: group_count groups; regions in none of them are needed for the whole
   * prefix. NULL and 0: no groups. */
  const kvstore_group_t *groups;
  size_t group_count;
} kvstore_namespace_config_t;

#define KVSTORE_KEEP UINT64_MAX

/* Expiry. A block is still valid at exactly its TTL. Lookups never return an expired block, and its
 * space is reclaimed soon. A store's time follows the machine's boot clock, which nobody sets; the
 * wall clock counts only after a reboot. It never goes back. */
#define KVSTORE_TTL_IDLE 0u     /* counted from the last use: a match, a touch or an offload of a
                                 * prompt uses all of its stored blocks. After the clock jumps by
                                 * more than a day across an open, earlier idle deadlines are
                                 * suspended until the next use. */
#define KVSTORE_TTL_ABSOLUTE 1u /* counted from the write; hides the subtree below the block as
                                 * well */
#define KVSTORE_TTL_UNLIMITED UINT64_MAX /* in a transfer: until evicted, whatever the namespace's
                                          * default is */

/* Fills *config with the defaults (sizes 1, ranks 0, limits KVSTORE_KEEP, everything else
 * empty). */
kvstore_status_t kvstore_namespace_config_init(kvstore_namespace_config_t *config, size_t struct_size);

/* Opens the namespace of this identity record, creating it when absent (one durable commit). Keep
 * the handle: a server with a salt per request should cache handles. Returns OK,
 * E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_READ_ONLY (absent, and the store is read-only),
 * E_IDENTITY, E_IO, E_NO_SPACE, E_CORRUPT, MISS (with KVSTORE_NAMESPACE_EXISTING only), FULL (the
 * catalog has no space for it), BUSY (it is absent, and another process blocks the writer; try
 * again). */
kvstore_status_t kvstore_namespace_open(kvstore_t *store, const kvstore_namespace_config_t *config,
                                        kvstore_namespace_t **namespace_out);

/* Closes the handle; the blocks stay. NULL is a no-op. Returns OK, E_BAD_HANDLE. */
kvstore_status_t kvstore_namespace_close(kvstore_namespace_t *ns);

/* The number of the namespace in its store, as used in events. Returns OK, E_INVALID_ARGUMENT,
 * E_BAD_HANDLE. */
kvstore_status_t kvstore_namespace_id(kvstore_namespace_t *ns, uint32_t *id_out);

/* Removes every block of the namespace, leased or not, for all handles and processes. It is
 * *purged* when the call returns (durably: neither a lookup nor a repair will find a block) and
 * *erased* when `slots_erase_pending` of kvstore_stats is 0: the library's own thread overwrites
 * the slots with zeros in the background, a piece at a time, and resumes after a restart. Payloads
 * stored in the catalog (`inline_payload_bytes_max`) are removed, but their pages are overwritten
 * only as the catalog reuses them. *blocks_out (may be NULL) gets the number removed. The handle
 * stays open. Blocks on disk I/O, longer for larger namespaces.
 * Returns OK, MISS (nothing was stored), BUSY (another process held the catalog too long: some
 * blocks may be gone, purge again), E_READ_ONLY, E_IO, E_NO_SPACE, E_CORRUPT, E_BAD_HANDLE,
 * E_FORKED, E_INTERNAL. */
kvstore_status_t kvstore_namespace_purge(kvstore_namespace_t *ns, uint64_t *blocks_out);

/* ---------------------------------------------------------------- prompts and keys */

/* A prompt from its first token on, whose blocks a call refers to. In tokens mode set `tokens`;
 * a partial last block is allowed where the function says so. In digest mode set `digests`: one
 * of digest_bytes for each block, first block first, each chained over its predecessor by the
 * caller. */
typedef struct {
  uint32_t struct_size;
  uint32_t flags; /* must be 0 */
  const uint32_t *tokens;
  size_t token_count;
  const void *digests; /* digest_count × digest_bytes, no alignment needed */
  size_t digest_count;
  /* Extra bytes of each block (image hashes or anything else that varies by position): NULL, or
   * `extra_count` entries for the first blocks; the rest have none. Hashed and compared along with
   * the tokens. A partial last block may have an entry, which is used once the block is full. */
  const kvstore_bytes_t *extra;
  size_t extra_count;
} kvstore_prompt_t;

typedef struct {
  uint8_t bytes[16]; /* most significant byte first */
} kvstore_block_key_t;

/* The chained keys of the prompt's full blocks, as defined in docs/file-format.md, with test
 * vectors. *count_out gets the number of full blocks, also when `capacity` is too small for them
 * (E_BUFFER_TOO_SMALL; the first `capacity` keys are written). `keys` may be NULL when capacity is
 * 0. Does not access the store.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_BUFFER_TOO_SMALL. */
kvstore_status_t kvstore_block_keys(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                    kvstore_block_key_t *keys, size_t capacity, size_t *count_out);

/* ---------------------------------------------------------------- lookup */

#define KVSTORE_MATCH_PEEK 1u            /* no lease, no effect on recency or counters: call as
                                          * often as you like */
#define KVSTORE_MATCH_LEAVE_ONE_TOKEN 2u /* leave at least one token to compute, since an engine
                                          * needs its logits */
#define KVSTORE_MATCH_REMOTE 4u          /* where less is stored than the prompt has, the remote
                                          * tier may be asked for the rest, in the background */

#define KVSTORE_LEASE_NANOSECONDS_DEFAULT UINT64_C(60000000000)
#define KVSTORE_LEASE_NANOSECONDS_MAX UINT64_C(600000000000)

typedef struct {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t tokens_matched; /* stored leading tokens: blocks_matched × tokens_per_block */
  uint64_t blocks_matched;
  uint64_t blocks_host; /* of those: with a copy in RAM */
  uint64_t blocks_disk; /* of those: only on disk, and not in the archive */
  uint64_t lease;       /* id of the lease on the matched prefix, 0 if none was taken */
  /* Estimated duration of restoring it, from the bandwidth of each tier measured in this process so
   * far (a moving average). 0: not known yet. Lets an engine choose to compute instead. */
  uint64_t estimated_restore_nanoseconds;
  uint64_t blocks_archive; /* of those: only in the archive */
  /* 1: what the remote tier has of the rest is being looked up or fetched. Match again every few
   * milliseconds until it is 0, or go on with what there is; it ends after the time limits of the
   * configuration at the latest, with more blocks or without. Also set when MISS is returned. */
  uint64_t being_fetched;
  uint64_t blocks_remote; /* on their way from there; 0 while that is not known */
  uint64_t estimated_fetch_nanoseconds; /* until they are here; 0: not known */
} kvstore_match_t;

/* The longest stored prefix of the prompt, in full blocks. A block counts as a hit only after its
 * stored token ids compare equal. Takes a lease on it (unless PEEK, nothing matched, or the store
 * is read-only) that exempts the blocks from eviction until it is released, expires
 * (`lease_nanoseconds`, 0 = the default, at most the maximum), or the process ends. A partial last
 * block is allowed. A warm match does no I/O.
 * Returns OK, MISS (nothing matched; *match is filled with zeros), E_INVALID_ARGUMENT,
 * E_BAD_HANDLE, E_FORKED, E_IO, E_CORRUPT, E_INTERNAL, FULL (no lease is free: *match is filled,
 * lease is 0). */
kvstore_status_t kvstore_match(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt, uint32_t flags,
                               uint64_t lease_nanoseconds, kvstore_match_t *match);

/* kvstore_match for a namespace in digest mode: `digests` is digest_count × digest_bytes, first
 * block first. */
kvstore_status_t kvstore_match_keys(kvstore_namespace_t *ns, const void *digests, size_t digest_count,
                                    uint32_t flags, uint64_t lease_nanoseconds, kvstore_match_t *match);

/* The longest prefix stored in every one of the namespaces, with a lease in each: for the ranks of
 * one model, whose namespaces differ only in their ranks. All belong to one store and share the
 * identity mode and tokens_per_block. `matches` has namespace_count entries, each with the same
 * struct_size; they get the same tokens_matched and blocks_matched.
 * Returns as kvstore_match does; FULL when a lease was refused, and then none was taken. */
kvstore_status_t kvstore_match_all(kvstore_namespace_t *const *namespaces, size_t namespace_count,
                                   const kvstore_prompt_t *prompt, uint32_t flags,
                                   uint64_t lease_nanoseconds, kvstore_match_t *matches);

/* ---------------------------------------------------------------- side sections */

/* A *side section* is a checkpoint of state that a model has at a block boundary besides the KV of
 * its tokens: that of recurrent layers, or a window that is kept separately. An engine stores it at
 * some boundaries, not at all of them, and can continue from a prefix only where it is stored.
 *
 * The sections of one name are blocks of a namespace of their own, in digest mode, which
 * kvstore_section_open opens; offload, restore, views, prefetch, pins and TTLs work on it as on any
 * other. One section is one block: a prompt of the one digest returned by kvstore_section_digest,
 * with one region of variable length. A section leaves with the block that it follows, whatever the
 * reason (an eviction spares one that is itself leased or pinned), and may be evicted before it.
 * kvstore_purge and kvstore_forget also remove those that follow a block of their prompt which is
 * not stored, and count them where no block was left. */

/* Opens the sections called `name` (1 ... 64 bytes of UTF-8) that belong to the blocks of `ns`,
 * creating their namespace when absent; bytes_max is the maximum size of one of them (1 byte ... 1
 * GiB; slots have that size). quota_bytes as in kvstore_namespace_config_t, KVSTORE_KEEP leaves it.
 * Their default TTL is the one that `ns` has now. Close the handle with kvstore_namespace_close.
 * Returns as kvstore_namespace_open; E_INVALID_ARGUMENT also when `ns` holds sections itself. */
kvstore_status_t kvstore_section_open(kvstore_namespace_t *ns, const char *name, uint64_t bytes_max,
                                      uint64_t quota_bytes, kvstore_namespace_t **section_out);

/* The digest of the section after the first `block_count` blocks of the prompt (0 = all its full
 * blocks), which is a prompt of the namespace that the section belongs to: 32 bytes in tokens mode,
 * otherwise digest_bytes of that namespace. docs/file-format.md defines it. *byte_count_out (may be
 * NULL) gets its length, also when `capacity` is too small for it. Does not access the store.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_BUFFER_TOO_SMALL. */
kvstore_status_t kvstore_section_digest(kvstore_namespace_t *section, const kvstore_prompt_t *prompt,
                                        uint64_t block_count, void *digest, size_t capacity,
                                        size_t *byte_count_out);

/* The longest *usable* prefix: the longest stored one at whose end all of the `section_count`
 * sections are stored as well; their bytes are those of the section after matches[0].blocks_matched
 * blocks. A lease on the prefix and one on each section. `matches` has 1 + section_count entries,
 * each with the same struct_size: of ns, then of each section (blocks_matched 1). Searches
 * backwards from the end of the stored prefix, and in tokens mode computes a SHA-256 of the prefix
 * (some milliseconds for 100,000 tokens). With KVSTORE_MATCH_REMOTE, matches[0].being_fetched says
 * that a longer prefix with its sections is looked up or on its way.
 * Returns as kvstore_match does; FULL when a lease was refused, and then none was taken. */
kvstore_status_t kvstore_match_sections(kvstore_namespace_t *ns, kvstore_namespace_t *const *sections,
                                        size_t section_count, const kvstore_prompt_t *prompt,
                                        uint32_t flags, uint64_t lease_nanoseconds,
                                        kvstore_match_t *matches);

/* ---------------------------------------------------------------- explain */

/* What ended the stored prefix of a prompt. */
#define KVSTORE_CAUSE_STORED 0u          /* nothing: all its full blocks are stored */
#define KVSTORE_CAUSE_NOTHING_STORED 1u  /* not its first block: no stored prompt of the namespace
                                          * begins like it, as with another conversation */
#define KVSTORE_CAUSE_APPENDED 2u        /* it continues where a stored one ends */
#define KVSTORE_CAUSE_FORKED 3u          /* stored ones with its front continue differently, with
                                          * nothing in common after that */
#define KVSTORE_CAUSE_EDITED 4u          /* tokens were replaced, after which the stored prompt
                                          * continues */
#define KVSTORE_CAUSE_INSERTED 5u        /* tokens were inserted, likewise */
#define KVSTORE_CAUSE_DELETED 6u         /* tokens of the stored prompt were left out */
#define KVSTORE_CAUSE_REORDERED 7u       /* the same parts in another order */
#define KVSTORE_CAUSE_VOLATILE_VALUE 8u  /* the same few tokens differ in every stored prompt: a
                                          * time, an id */
#define KVSTORE_CAUSE_ELSEWHERE 9u       /* part of what follows is stored after another prefix */
#define KVSTORE_CAUSE_OTHER_NAMESPACE 10u /* it is stored under another identity */
#define KVSTORE_CAUSE_EVICTED 11u
#define KVSTORE_CAUSE_OVER_QUOTA 12u
#define KVSTORE_CAUSE_EXPIRED 13u
#define KVSTORE_CAUSE_FORGOTTEN 14u
#define KVSTORE_CAUSE_DAMAGED 15u
#define KVSTORE_CAUSE_PARTIAL_BLOCK 16u /* only tokens that do not fill a block are missing */

typedef struct {
  uint32_t struct_size;
  uint32_t cause; /* KVSTORE_CAUSE_* */
  uint64_t blocks_asked, blocks_matched, tokens_matched;
  uint64_t divergence_token;   /* leading tokens in common with the nearest stored prompt, not only
                                * whole blocks */
  uint64_t prompt_tokens;      /* EDITED, INSERTED: number of tokens in the prompt ... */
  uint64_t stored_tokens;      /* EDITED, DELETED: ... and in the stored one, at that point */
  uint64_t tokens_lost;        /* stored, but after the divergence: what the change costs */
  uint64_t elsewhere_token;    /* where that part begins in its own chain; UINT64_MAX: not known */
  uint64_t left_nanoseconds;   /* when the missing block was removed or expired, Unix time; or 0 */
  uint64_t branch_count;       /* stored continuations at that point */
  uint64_t nearest_run;        /* the nearest one, by the number that events use; 0: none */
  uint32_t nearest_position;
  uint32_t nearest_token_count; /* how it continues: the first of its differing tokens */
  uint32_t nearest_tokens[8];
  uint32_t other_namespace; /* OTHER_NAMESPACE: see kvstore_namespace_id */
  uint32_t reserved;
  uint64_t other_tokens_matched;
  char message[768]; /* cause and remedy in plain English, NUL-terminated; no tokens, no values of
                      * an identity */
} kvstore_explanation_t;

/* Explains why the prompt is stored only so far: call it on a miss. Reads a bounded number of
 * committed rows and waits for no writer; takes no lease and changes nothing. Of other namespaces
 * it reveals only which field differs, and only of those with the same salt (or none, like this
 * one). A partial last block is allowed; an empty prompt is E_INVALID_ARGUMENT. In digest mode the
 * tokens themselves are not known, so EDITED ... ELSEWHERE cannot be distinguished from FORKED.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_IO, E_CORRUPT, E_OUT_OF_MEMORY. */
kvstore_status_t kvstore_explain(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt, uint32_t flags,
                                 kvstore_explanation_t *explanation);

/* ---------------------------------------------------------------- move */

/* One piece of caller memory. */
typedef struct {
  void *data;      /* offload only reads it */
  size_t capacity; /* restore: bytes that fit at data */
  size_t length;   /* offload: bytes to store; restore: set to the region's byte count */
} kvstore_span_t;

typedef struct {
  uint32_t struct_size;
  uint32_t flags; /* KVSTORE_TRANSFER_* */
  uint64_t first_block, block_count; /* blocks of the prompt; block_count 0 = to its last full
                                      * block */
  uint32_t first_region, region_count; /* regions of each block; region_count 0 = to the last one */
  /* block_count × region_count spans, block by block: span b × region_count + r is region
   * first_region + r of block first_block + b. Paged engine memory is read and filled in place. */
  kvstore_span_t *spans;
  size_t span_count;
  /* NULL, or block_count statuses to fill: OK, MISS, FULL, PARENT_MISSING, E_BUFFER_TOO_SMALL,
   * E_IO, ... */
  kvstore_status_t *block_status;
  /* 0: a restore has no limit, an offload waits at most the store's offload_timeout_nanoseconds.
   * Otherwise the call returns KVSTORE_BUSY after this time: the first blocks_done blocks are
   * complete, and nothing accesses the spans' memory after it has returned, however long the disk
   * still takes. */
  uint64_t timeout_nanoseconds;
  /* Offload only: TTL of these blocks, 0 = the namespace's default, and its kind. The TTL of a
   * stored block is never shortened. To give parts of a prompt different hints, offload ranges of
   * blocks. */
  uint64_t ttl_nanoseconds;
  uint32_t ttl_kind; /* KVSTORE_TTL_* */
  uint32_t priority; /* offload with KVSTORE_TRANSFER_PRIORITY only: 0 ... 100. Blocks of lower
                      * priority are evicted first, but never before the blocks below them; without
                      * the flag the priority is 50. */
  /* Restore into a namespace with groups: number of blocks of the prefix that the engine continues
   * from, where the groups' last windows end. 0 = to the last block of the transfer; set it when
   * one prefix is restored in several pieces. */
  uint64_t prefix_block_count;
} kvstore_transfer_t;

#define KVSTORE_TRANSFER_PRIORITY 1u /* `priority` is set; a stored block keeps the larger one */
#define KVSTORE_TRANSFER_WHOLE 2u    /* restore: all regions of all blocks, whatever windows the
                                      * groups have */

typedef struct {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t blocks_done;  /* restore: leading blocks that are complete; offload: blocks accepted or
                          * already stored */
  uint64_t blocks_host;  /* restore: of those, from RAM; offload: of those, accepted now */
  uint64_t blocks_disk;  /* restore: of those, from disk; offload: of those, already stored */
  uint64_t bytes;        /* bytes copied to or from the caller */
} kvstore_transfer_result_t;

/* Copies stored blocks into the caller's memory, every byte from disk verified (checksums, key,
 * token ids, namespace) before the call returns OK. With a region range, only those bytes are read:
 * layer-wise loading. A partial last block is allowed, so one prompt serves match and restore.
 *
 * Where the namespace has groups with windows, the regions of such a group are restored only for
 * blocks that hold one of the last window_tokens tokens of the prefix (transfer->prefix_block_count
 * blocks). The others are not read from disk, their spans get length 0 and their memory is not
 * written; their data may be NULL. A block of which nothing is needed counts as done, but neither
 * in blocks_host nor in blocks_disk. What was restored serves this prefix and longer ones: for a
 * shorter one, also after MISS, restore its own window. (An archived block is read whole, in
 * compressed form, and only what is needed is decoded. Views, prefetches and devices use whole
 * blocks.)
 *
 * After any status but OK, the memory of the blocks after the first `blocks_done` is undefined.
 * Blocks on disk I/O, at most transfer->timeout_nanoseconds if that is set. `result` may be NULL.
 * Returns OK, MISS (fewer blocks than asked for; the first blocks_done are complete), BUSY (the
 * timeout; likewise), E_INVALID_ARGUMENT (also a scatter list that does not fit the namespace),
 * E_BUFFER_TOO_SMALL, E_IO, E_BAD_HANDLE, E_FORKED, E_INTERNAL. */
kvstore_status_t kvstore_restore(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                 const kvstore_transfer_t *transfer, kvstore_transfer_result_t *result);

/* Stores blocks. Returns once the bytes are copied into the host tier; they are visible to matches
 * in this process at once, and durable and visible to others soon after, or at kvstore_flush. A
 * block that is already stored is skipped. The prompt must consist of whole blocks; its blocks
 * before first_block must be stored (otherwise PARENT_MISSING). With a region range, a block
 * becomes visible when all of its regions have arrived: layer-wise saving, one call per layer.
 * `result` may be NULL. Blocks at most transfer->timeout_nanoseconds, or
 * offload_timeout_nanoseconds where that is 0.
 * Returns OK, BUSY (the first blocks_done were accepted), FULL, PARENT_MISSING, E_INVALID_ARGUMENT,
 * E_READ_ONLY, E_IO or E_NO_SPACE (the store can no longer write), E_BAD_HANDLE, E_FORKED,
 * E_INTERNAL. */
kvstore_status_t kvstore_offload(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                 const kvstore_transfer_t *transfer, kvstore_transfer_result_t *result);

/* ---------------------------------------------------------------- move, without copying */

/* Starts reading the prompt's stored prefix from disk into the host tier, in the background:
 * bounded (half of the host tier, leading blocks first, as far as there is space) and best effort.
 * A match reports how much has arrived (blocks_host). *blocks_out (may be NULL) gets the number of
 * blocks that it will try to read. A partial last block is allowed. Does not wait for slot files.
 * Returns OK, MISS (nothing is stored), BUSY (64 prefetches are queued), E_INVALID_ARGUMENT,
 * E_BAD_HANDLE, E_FORKED, E_IO, E_CORRUPT, E_OUT_OF_MEMORY. */
kvstore_status_t kvstore_prefetch(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                  uint64_t *blocks_out);

/* kvstore_restore without the copy: lends the blocks in place in the host tier, after reading those
 * on disk into it and verifying them. transfer->spans are filled: data and length of each region of
 * the first result->blocks_done blocks (whatever the status), NULL and 0 after them. The bytes are
 * read-only; they stay unchanged, even if the blocks are forgotten, until kvstore_view_release, or
 * kvstore_close of the store. *view_out is NULL when no block was lent. Views and reservations of
 * all handles together hold at most half of the host tier, so that offloads and restores can
 * proceed: beyond that, FULL. Release promptly. Waits for space and for the disk at most
 * transfer->timeout_nanoseconds, or offload_timeout_nanoseconds where that is 0.
 * Returns OK, MISS, FULL, BUSY (fewer blocks than asked for), and the errors of kvstore_restore. */
kvstore_status_t kvstore_restore_view(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                      const kvstore_transfer_t *transfer, kvstore_view_t **view_out,
                                      kvstore_transfer_result_t *result);

/* Ends a view: its pointers must not be used any more. NULL is a no-op (OK). Never blocks.
 * Returns OK, E_BAD_HANDLE (already released, or its store was closed), E_FORKED. */
kvstore_status_t kvstore_view_release(kvstore_view_t *view);

/* kvstore_offload without the copy, in two phases. Reserving lends memory of the host tier for the
 * blocks of the transfer that are not stored yet (all regions, whole blocks): transfer->spans are
 * filled with data and capacity of each region, `length` being the namespace's byte count; NULL and
 * 0 for a block that is stored already. Write each region to its data, then commit, which offloads
 * the blocks as kvstore_offload does, or abort. A reservation lasts `reservation_nanoseconds` (0 =
 * a minute, at most KVSTORE_LEASE_NANOSECONDS_MAX). After its end, after commit or abort, and after
 * kvstore_close, do not write to its memory, which then holds other blocks. *reservation_out is
 * NULL when there is nothing to write. Bounded and waits as kvstore_restore_view does.
 * result->blocks_done counts leading blocks that are stored or reserved, blocks_host those
 * reserved, blocks_disk those stored.
 * Returns OK, FULL, BUSY (the leading blocks_done are valid), PARENT_MISSING, and the errors of
 * kvstore_offload. */
kvstore_status_t kvstore_offload_reserve(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                         const kvstore_transfer_t *transfer, uint64_t reservation_nanoseconds,
                                         kvstore_reservation_t **reservation_out,
                                         kvstore_transfer_result_t *result);

/* Stores the written blocks. `spans` are those of the reserve call with each `length` set to what
 * was written, or NULL with span_count 0 where the namespace's regions have fixed byte counts.
 * `result` (may be NULL) covers the reserved blocks alone: blocks_done and blocks_host count them.
 * The handle is freed, except after E_INVALID_ARGUMENT, E_FORKED and E_INTERNAL. Computes
 * checksums; does not wait. Returns OK, BUSY (the reservation had ended: nothing was stored),
 * PARENT_MISSING (it was removed in the meantime), E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED,
 * E_INTERNAL. */
kvstore_status_t kvstore_offload_commit(kvstore_reservation_t *reservation, const kvstore_span_t *spans,
                                        size_t span_count, kvstore_transfer_result_t *result);

/* Returns the reserved memory; nothing is stored. NULL is a no-op (OK). Returns OK, E_BAD_HANDLE,
 * E_FORKED. */
kvstore_status_t kvstore_offload_abort(kvstore_reservation_t *reservation);

/* ---------------------------------------------------------------- move, without waiting */

/* Start a restore or an offload and return at once; *operation_out gets its handle. Until its
 * completion has been reported by kvstore_poll or kvstore_wait, the operation borrows
 * transfer->spans, the memory that they point to, and transfer->block_status: do not access or free
 * them. The prompt and the transfer struct itself are copied.
 *
 * Each is the call of the same name without _start, done on a thread of the library's own, and
 * completes with one of its statuses. Restores run a few at a time: start one for each layer (a
 * region range each), in the order in which they are needed, and use layer k when its operation has
 * completed, while later ones still load; those that wait are read together. Offloads run one at a
 * time, in the order in which they were started. A timeout in the transfer counts from the start.
 * Return OK, BUSY (1,024 are queued), or an error of the call; unless it is OK nothing was
 * borrowed, and *operation_out is NULL. */
kvstore_status_t kvstore_restore_start(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                       const kvstore_transfer_t *transfer,
                                       kvstore_operation_t **operation_out);
kvstore_status_t kvstore_offload_start(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                       const kvstore_transfer_t *transfer,
                                       kvstore_operation_t **operation_out);

/* RUNNING while the operation has not completed. After that its status, once, with *result (may be
 * NULL) and the block statuses filled; from then on its memory belongs to the caller again and the
 * handle is freed. Never blocks. E_INVALID_ARGUMENT (a bad result struct), E_FORKED: not reported,
 * call again. E_BAD_HANDLE: already reported. */
kvstore_status_t kvstore_poll(kvstore_operation_t *operation, kvstore_transfer_result_t *result);

/* As kvstore_poll, but waits at most `timeout_nanoseconds` (0 = without a limit). RUNNING: the
 * timeout came first; the operation continues and its memory stays borrowed. */
kvstore_status_t kvstore_wait(kvstore_operation_t *operation, uint64_t timeout_nanoseconds,
                              kvstore_transfer_result_t *result);

/* Asks an operation to end early; blocks not done by then get BUSY. Its memory stays borrowed until
 * completion is reported, which does not wait for the disk. Never blocks. Returns OK (also when it
 * has completed), E_BAD_HANDLE, E_FORKED. */
kvstore_status_t kvstore_cancel(kvstore_operation_t *operation);

/* ---------------------------------------------------------------- device */

/* The device tier: a pool of slots in the memory of a GPU, one block each, and sequences of tokens
 * with block tables (as in PagedAttention). The library allocates the slots, counts references, and
 * moves blocks between them and its other tiers; the engine writes the KV of new tokens into the
 * slots itself. Slots start empty and belong to this process. */
/* One block to be copied, whole. */
typedef struct {
  uint64_t slot;      /* of the device: at slot × slot bytes in its memory, or wherever the engine
                       * keeps it */
  uint64_t from_slot; /* KVSTORE_DEVICE_WITHIN: the source slot */
  void *host;         /* the block's regions, contiguous in the host tier (kvstore_host_memory);
                       * NULL within the device */
  uint64_t bytes;
} kvstore_device_copy_t;

#define KVSTORE_DEVICE_IN 1u     /* from host to slot */
#define KVSTORE_DEVICE_OUT 2u    /* from slot to host */
#define KVSTORE_DEVICE_WITHIN 3u /* from from_slot to slot */

/* The engine's copy function: starts `count` copies in one of the directions and returns; `copies`
 * is valid during the call only. When all are complete, the engine calls
 * kvstore_device_copy_done(completion, status) once, from any thread, also from inside this call.
 * Called on threads of the caller's, several at a time, with no lock of the library's held. Must
 * not call any other function of the library. */
typedef void (*kvstore_device_copy_fn)(void *context, uint32_t direction, const kvstore_device_copy_t *copies,
                                       size_t count, uint64_t completion);

typedef struct {
  uint32_t struct_size;
  uint32_t flags; /* must be 0 */
  uint64_t slot_count;
  kvstore_device_copy_fn copy; /* NULL: the simulated device, slots in ordinary memory */
  void *context;               /* passed to `copy` */
} kvstore_device_config_t;

/* Attaches a device whose slots hold blocks of the namespace, which is in tokens mode and has
 * regions of fixed length. The engine's `copy` and `context` stay valid until kvstore_device_detach
 * has returned OK.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_OUT_OF_MEMORY. */
kvstore_status_t kvstore_device_attach(kvstore_namespace_t *ns, const kvstore_device_config_t *config,
                                       kvstore_device_t **device_out);

/* Ends the device's sequences and frees the handle. NULL is a no-op (OK). kvstore_close of the
 * store's handle does the same, and copies still in flight keep their memory until
 * kvstore_device_copy_done. Returns OK, BUSY (copies are in flight, of a call in another
 * thread or of one that gave up: the handle is kept), E_BAD_HANDLE. */
kvstore_status_t kvstore_device_detach(kvstore_device_t *device);

/* Reports that the copies started under this number are complete: KVSTORE_OK, or an error if one of
 * them failed. Never blocks.
 * Returns OK, E_BAD_HANDLE (no such copies, or already reported). */
kvstore_status_t kvstore_device_copy_done(uint64_t completion, kvstore_status_t status);

/* The simulated device's memory: slot i begins at *base + i × *slot_bytes. *base is NULL for a
 * device of the engine's own.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE. */
kvstore_status_t kvstore_device_memory(kvstore_device_t *device, void **base, uint64_t *slot_bytes);

/* A sequence: tokens, and the slots of their blocks; the last block may be partial. It is
 * identified by a number; 0 is none. Only one thread at a time may change a sequence. Besides the
 * statuses listed, each function returns E_INVALID_ARGUMENT for a sequence that the device does not
 * have (any more), E_BAD_HANDLE and E_FORKED. */

/* An empty sequence. Returns OK. */
kvstore_status_t kvstore_sequence_create(kvstore_device_t *device, uint64_t *sequence_out);

/* A sequence with the same tokens that shares all slots of another one, including the last. Returns
 * OK. */
kvstore_status_t kvstore_sequence_fork(kvstore_device_t *device, uint64_t sequence, uint64_t *sequence_out);

/* Ends a sequence. Slots that no other sequence uses are freed; those of blocks that were restored
 * or offloaded stay cached until the space is needed. Returns OK. */
kvstore_status_t kvstore_sequence_free(kvstore_device_t *device, uint64_t sequence);

/* Appends tokens whose KV the engine is about to write, and slots for them: all or nothing. If
 * other sequences share the last, partial block, it is copied to a slot of the sequence's own first
 * (copy on write), so read the table again afterwards. `timeout_nanoseconds` 0 = the store's
 * offload_timeout_nanoseconds.
 * Returns OK, FULL (too few free slots), BUSY (the copy took too long: nothing was appended), E_IO
 * (the copy failed). */
kvstore_status_t kvstore_sequence_append(kvstore_device_t *device, uint64_t sequence, const uint32_t *tokens,
                                         size_t token_count, uint64_t timeout_nanoseconds);

/* The slots of the sequence's blocks, in order. *count_out gets their number, also when `capacity`
 * is too small for them (E_BUFFER_TOO_SMALL; the first `capacity` are written). `slots` may be NULL
 * when capacity is 0. Returns OK. */
kvstore_status_t kvstore_sequence_table(kvstore_device_t *device, uint64_t sequence, uint64_t *slots,
                                        size_t capacity, size_t *count_out);

/* Starts an empty sequence with the prompt's longest stored prefix, in full blocks: blocks that are
 * already on the device are shared, the others are copied into slots from the host tier, or from
 * disk through it, with every byte verified. The prompt must not have extra bytes; append a partial
 * last block with kvstore_sequence_append. In *result (may be NULL) blocks_done counts the blocks
 * of the sequence, blocks_host and blocks_disk those from each tier; the others were on the device.
 * Returns OK, MISS, FULL (too few slots, or too much of the host tier is lent), BUSY (the timeout,
 * 0 = offload_timeout_nanoseconds); whatever the status, the sequence has the first blocks_done
 * blocks; E_IO, E_CORRUPT, E_INTERNAL. */
kvstore_status_t kvstore_sequence_restore(kvstore_device_t *device, uint64_t sequence, const kvstore_prompt_t *prompt,
                                          uint64_t timeout_nanoseconds, kvstore_transfer_result_t *result);

/* Offloads the sequence's full blocks, which the engine has written to their slots; those that are
 * already stored are not copied. From then on restores share the slots, and the engine must not
 * write to those blocks any more. *result (may be NULL) is as for kvstore_offload.
 * Returns OK, FULL, BUSY, PARENT_MISSING (the first blocks_done are stored), E_READ_ONLY, E_IO,
 * E_INTERNAL. */
kvstore_status_t kvstore_sequence_offload(kvstore_device_t *device, uint64_t sequence, uint64_t timeout_nanoseconds,
                                          kvstore_transfer_result_t *result);

/* ---------------------------------------------------------------- keep */

/* Ends a lease. Any thread, any process. Releasing one that has ended is OK, and so is releasing 0,
 * the lease of a miss. E_BAD_HANDLE: never a lease. */
kvstore_status_t kvstore_lease_release(kvstore_t *store, uint64_t lease);

/* Extends a lease to `lease_nanoseconds` (at most the maximum) from now. MISS: it has already
 * ended. */
kvstore_status_t kvstore_lease_extend(kvstore_t *store, uint64_t lease, uint64_t lease_nanoseconds);

/* Records a use of the prompt's longest stored prefix without reading it, so that it is evicted
 * later. *blocks_out (may be NULL) gets its length. Returns OK, MISS (nothing stored), E_*. */
kvstore_status_t kvstore_touch(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                               uint64_t *blocks_out);

#define KVSTORE_PIN_NANOSECONDS_MAX UINT64_C(7776000000000000) /* 90 days */

/* Keeps the prompt's longest stored prefix for `pin_nanoseconds` (1 ... the maximum): it is not
 * evicted, and no idle TTL of it expires, before the pin ends. A pin is durable and outlives its
 * process; it ends by time or by kvstore_unpin. An absolute TTL and kvstore_forget take precedence.
 * *pin_out gets its number. *blocks_out (may be NULL) gets the length of the prefix.
 * It also ends when nothing is left of the prefix. A namespace has 4,096 pins at most, fewer in a
 * store with a small catalog.
 * Returns OK, MISS (nothing stored), FULL (too many pins), BUSY (another process blocks the
 * writer), E_*. */
kvstore_status_t kvstore_pin(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt, uint64_t pin_nanoseconds,
                             uint64_t *pin_out, uint64_t *blocks_out);

/* Ends a pin. Any process. MISS: no such pin, or it has ended. Returns OK, MISS, BUSY, E_*. */
kvstore_status_t kvstore_unpin(kvstore_t *store, uint64_t pin);

/* Removes the prompt's last full block and everything below it, durably when it returns: no lookup
 * finds them. An empty prompt removes every block of the namespace. Leased blocks are removed too.
 * *blocks_out (may be NULL) gets the number removed. Returns OK, MISS (it was not stored), BUSY
 * (another process blocks the writer; the removal may still happen once it continues), E_*. */
kvstore_status_t kvstore_forget(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt,
                                uint64_t *blocks_out);

#define KVSTORE_PURGE_TAIL 1u /* a session's own blocks: those of the prompt's longest stored prefix
                               * below its last branching point; none if others continue from its
                               * end */

/* Removes the prompt's last full block and everything below it as kvstore_namespace_purge removes a
 * namespace: durable when it returns, and the slots are overwritten with zeros in the background
 * (`slots_erase_pending`). `flags` is 0 or KVSTORE_PURGE_TAIL. Leased blocks are removed too.
 * *blocks_out (may be NULL) gets the number removed. Returns OK, MISS (it was not stored, or
 * nothing of it is the prompt's own), BUSY (as kvstore_forget), E_*. */
kvstore_status_t kvstore_purge(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt, uint32_t flags,
                               uint64_t *blocks_out);

/* ---------------------------------------------------------------- sessions */

/* A session records what each request (step) of one conversation or agent run asked for, found and
 * computed, so that `kvstore inspect sessions` can show its hit rate step by step and where its
 * prefix broke. Records are durable at most a second after a step, or at kvstore_flush; they
 * contain token counts, never tokens. The newest 1,024 sessions and 1,024 steps of each are kept,
 * fewer in a small catalog. `name` (NULL = none) is chosen by the caller, UTF-8, at most 64 bytes,
 * and need not be unique. *id_out (may be NULL) gets the number under which it is recorded.
 * Returns OK, E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED, E_READ_ONLY. */
kvstore_status_t kvstore_session_begin(kvstore_namespace_t *ns, const char *name, kvstore_session_t **session_out,
                                       uint64_t *id_out);

/* As kvstore_match, recorded as the session's next step; with PEEK it is only a match. The prompt
 * is kept in RAM to be compared with the next one. Of two matches before a kvstore_session_step,
 * the second counts. */
kvstore_status_t kvstore_session_match(kvstore_session_t *session, const kvstore_prompt_t *prompt, uint32_t flags,
                                       uint64_t lease_nanoseconds, kvstore_match_t *match);

/* Ends the step that kvstore_session_match began. `tokens_computed`: tokens of the prompt that the
 * engine computed; UINT64_MAX = those not matched. *step_out (may be NULL) gets its number, from 1.
 * Never blocks. Returns OK, MISS (no match preceded it), E_BAD_HANDLE, E_FORKED, E_READ_ONLY. */
kvstore_status_t kvstore_session_step(kvstore_session_t *session, uint64_t tokens_computed, uint64_t *step_out);

/* Keep-alive: kvstore_touch on the stored prefix of the session's last prompt. Call it from time to
 * time while a session pauses, so that it resumes warm. Returns as kvstore_touch does. */
kvstore_status_t kvstore_session_touch(kvstore_session_t *session, uint64_t *blocks_out);

/* The session's time to live: from now on each step and touch extends the stored prefix of the
 * session's prompt to at least `ttl_nanoseconds`, so that it resumes warm after a pause longer than
 * its blocks' own TTL; 0 = their own TTL. Only idle TTLs are extended; absolute ones stay, and the
 * blocks may still be evicted (kvstore_pin prevents that). *blocks_out (may be NULL) gets the
 * number of blocks extended now. Returns OK, E_BAD_HANDLE, E_FORKED, E_READ_ONLY. */
kvstore_status_t kvstore_session_set_ttl(kvstore_session_t *session, uint64_t ttl_nanoseconds, uint64_t *blocks_out);

/* Ends the session and frees the handle; its record stays. An unfinished step is not recorded. NULL
 * is a no-op. kvstore_close of its store ends the handle too.
 * Returns OK, E_BAD_HANDLE, E_FORKED. */
kvstore_status_t kvstore_session_end(kvstore_session_t *session);

/* ---------------------------------------------------------------- events */

#define KVSTORE_EVENT_STORED 1u      /* blocks were published */
#define KVSTORE_EVENT_REMOVED 2u     /* blocks were removed; `reason` says why */
#define KVSTORE_EVENT_QUARANTINED 3u /* blocks were removed because they were damaged */
#define KVSTORE_EVENT_MOVED 4u       /* blocks were moved to another tier */

#define KVSTORE_REASON_NONE 0u
#define KVSTORE_REASON_EVICTED 1u   /* the space was needed */
#define KVSTORE_REASON_FORGOTTEN 2u /* kvstore_forget */
#define KVSTORE_REASON_CORRUPT 3u   /* a check failed */
#define KVSTORE_REASON_EXPIRED 4u   /* its TTL had passed */
#define KVSTORE_REASON_QUOTA 5u     /* its namespace was over its quota */

/* What happened to the blocks first_position ... first_position + block_count - 1 of one run (a
 * chain of blocks without a fork). Written in the same commit as the change it reports. */
typedef struct {
  uint64_t sequence;
  uint64_t time_nanoseconds; /* Unix time */
  uint32_t kind;             /* KVSTORE_EVENT_* */
  uint32_t reason;           /* KVSTORE_REASON_* */
  uint32_t tier;             /* 2 disk, 3 archive */
  uint32_t namespace_id;     /* see kvstore_namespace_id */
  uint64_t run;
  uint32_t first_position;
  uint32_t block_count;
  uint32_t owner; /* number of the process that made the change */
  uint32_t reserved;
} kvstore_event_t;

/* Reads the events of all processes after *cursor, oldest first: at most `capacity` (and 1,000) of
 * them. `event_size` is sizeof(kvstore_event_t). *cursor advances past the last one read: start
 * with 0 for the oldest one kept, and keep it, also across restarts. The newest 65,536 events are
 * kept. Waits for no writer.
 * Returns OK (*count_out may be 0: nothing new), LAPPED (some were lost, so derived state is
 * invalid: *cursor is now the newest; start over), E_INVALID_ARGUMENT, E_BAD_HANDLE, E_FORKED,
 * E_IO, E_CORRUPT. */
kvstore_status_t kvstore_events_read(kvstore_t *store, uint64_t *cursor, kvstore_event_t *events,
                                     size_t event_size, size_t capacity, size_t *count_out);

#ifdef __cplusplus
}
#endif
#endif /* KVSTORE_H */
