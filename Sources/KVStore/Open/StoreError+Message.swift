internal import Glibc
internal import KVCatalog
public import KVCore

extension StoreError {
  /// What happened and what to do about it, for people.
  ///
  /// Holds no prompt, token, path of the caller or secret.
  public var message: String {
    switch self {
    case .invalidArgument(let argument): argument.message
    case .closed: "the store or namespace was closed"
    case .forked: "the handle was opened before fork(): open the store again in the child"
    case .io(.folder, errno: ESTALE):
      "the store's folder was removed, moved or replaced while it was open: close the store and open it again"
    case .io(let action, let code): "\(action.phrase): \(errorText(code))"
    case .noSpace(let action):
      "\(action.phrase): no space left on the device or in the disk quota; free some, or lower capacity_bytes"
    case .corrupt(.catalogPage):
      "the catalog is damaged (LMDB refuses its pages): stop all that use the store and run kvstore repair"
    case .corrupt(.catalogMeta):
      "the catalog's own description is damaged: stop all that use the store and run kvstore repair"
    case .corrupt(.identityRecord): "a namespace's identity record is damaged: run kvstore repair"
    case .corrupt(.catalogMissing):
      "the folder holds a store's slot files and no catalog: run kvstore repair, or choose an empty folder"
    case .corrupt(.nothingToRepair):
      "neither the catalog nor identities.kvs tells what the slot files are: nothing can be proved; move the folder away and start anew"
    case .versionMismatch(let found) where found > 0 && found < Catalog.formatVersion:
      "the store has format version \(found), this library reads version \(Catalog.formatVersion): run kvstore repair, which makes a new catalog"
    case .versionMismatch(let found):
      "the store has format version \(found), newer than this library reads: update the library"
    case .locked(.otherPIDNamespace):
      "a process in another PID namespace (container) has the store open: LMDB cannot be shared across them; "
        + "let them share it (docker --pid=container:NAME, Kubernetes shareProcessNamespace) or give each its own folder"
    case .locked(.otherSharedMemory):
      "a process that does not share our /dev/shm has the store open (another container, an older library, one of LMDB's own tools): "
        + "let them share it (docker --ipc=container:NAME, a volume at /dev/shm in Kubernetes), stop it, or give each its own folder"
    case .locked(.otherCopy):
      "another copy of libkvstore in this process has the store open: load one copy only"
    case .locked(.inUse): "a process has the store open: stop it first"
    case .locked(.opening):
      "another process is opening the store and does not go on: is it stopped (SIGSTOP, a debugger)? continue or end it"
    case .locked(.archiveOfAnother):
      "the archive belongs to another store, of which this one is a copy: set archive_bytes to 0, or remove the link archive "
        + "and give this store an archive_path of its own; if the other store is no more (this one was moved), remove the "
        + "file owner in the archive's folder"
    case .locked(.archiveAway):
      "the store's archive is not there (is its disk mounted?): a repair would lose its blocks; mount it, or repair with "
        + "--without-archive"
    case .locked(.repairing): "the store is being repaired: open it when that is done"
    case .locked(.readerTableFull):
      "the catalog's reader table is full: too many threads or processes read it at once"
    case .locked(.writerStalled):
      "another process holds the catalog's write lock and does not go on: is it stopped (SIGSTOP, a debugger)?"
    case .outOfMemory: "memory was refused: lower host_bytes"
    case .readOnly: "the store was opened read-only"
    case .identityCollision:
      "another namespace has the same hash: change any field, for example engine_bytes"
    case .notAStore:
      "the path holds something that is not a store: choose another or an empty folder"
    case .full:
      "everything that could leave is leased or in use: release leases or raise capacity_bytes"
    case .busy: "the deadline passed first: try again, or raise the timeout"
    case .poisoned:
      "an internal invariant failed; the store answers misses only until it is opened again: please report it"
    }
  }
}

extension Argument {
  fileprivate var message: String {
    switch self {
    case .null: "a required pointer is NULL"
    case .structSize:
      "struct_size is not one that a version of the header ever had: set it to sizeof"
    case .flags: "unknown flag bits are set"
    case .path: "path is empty, too long, or cannot be used as a folder"
    case .capacity: "capacity_bytes must be at least 64 MiB, and host and inline bytes must be sane"
    case .catalogSize: "catalog_bytes must be at least 1 MiB and at most 15/16 of capacity_bytes"
    case .hostTooSmall: "host_bytes must hold at least four blocks of the namespace: raise it"
    case .capacityTooSmall:
      "capacity_bytes has no room for a single block of the namespace: raise it"
    case .tokensPerBlock: "tokens_per_block must be 1...65536"
    case .digestByteCount: "digest_bytes must be a multiple of 4 in 32...64 in digest mode, else 0"
    case .regionCount: "region_count must be 1...4096"
    case .groups:
      "groups must be in the order of their regions, without overlap, each of at least one of the namespace's regions"
    case .sectionName:
      "a section's name must be 1...64 bytes of UTF-8, and a section has no sections of its own"
    case .remote:
      "a setting of the remote tier is out of range, or its URL is none that this library knows"
    case .remoteKey:
      "remote_key_file cannot be used: it must be yours, of mode 0600, and hold 32 to 4096 bytes"
    case .remoteCredentials:
      "remote_credentials_file cannot be used: it must be yours, of mode 0600, with a line password=… and perhaps one user=…"
    case .remoteTLS:
      "the remote tier wants TLS, and OpenSSL or the certificates for it are not to be had"
    case .sessionName: "a session's name has at most 64 bytes of UTF-8"
    case .prefixBlockCount:
      "prefix_block_count must be 0, or reach from the transfer's last block to the prompt's"
    case .regionByteCount: "each region must have 1 byte to 1 GiB, and all together at most 1 GiB"
    case .extraByteCount: "extra bytes of a block exceed extra_bytes_max (itself at most 16384)"
    case .identityFieldTooLong: "an identity field is longer than 4096 bytes"
    case .parallelism: "each parallel size must be at least 1, and its rank below it"
    case .identityMode: "identity_mode is unknown"
    case .noTokens: "the prompt is empty"
    case .tokensNotWholeBlocks: "the token count must be a whole number of blocks here"
    case .wrongIdentityMode:
      "tokens were given to a namespace in digest mode, or digests to one in tokens mode"
    case .extraCount:
      "extra has more entries than the prompt has blocks, one that is not full included"
    case .blockRange: "first_block and block_count reach beyond the prompt's full blocks"
    case .regionRange: "first_region and region_count reach beyond the namespace's regions"
    case .spanCount: "span_count must be block_count × region_count"
    case .spanLength: "a span's length does not fit the namespace's region byte count"
    case .spanNull: "a span with a length has a NULL data pointer"
    case .archivePath:
      "archive_path cannot be used, or the store's archive lies elsewhere: kvstore set archive-path moves it"
    case .archiveSize: "archive_bytes must be 0 or at least 64 MiB"
    case .priority: "a priority is above 100"
    case .pinDuration: "a pin lasts at least a nanosecond and at most KVSTORE_PIN_NANOSECONDS_MAX"
    case .deviceSlotCount: "slot_count must be at least 1, and fit the device's memory"
    case .sequence: "the device has no such sequence: it was freed, or the device was detached"
    case .sequenceNotEmpty: "a sequence is restored before anything else is in it"
    case .timeToLive: "the kind of a time to live is unknown"
    case .leaseDuration: "the lease is longer than KVSTORE_LEASE_NANOSECONDS_MAX"
    case .namespacesDiffer:
      "the namespaces must be of one store, with the same identity_mode and tokens_per_block"
    case .textNotUTF8: "a text field is not UTF-8"
    case .namespace: "the store has no such namespace"
    case .salt:
      "the namespace has a salt, of which only a keyed digest is stored: no other store could take its blocks"
    }
  }
}

extension FileAction {
  fileprivate var phrase: String {
    switch self {
    case .folder: "the store's folder"
    case .createFolder: "cannot create or use the store's folder"
    case .openCatalog: "cannot open the catalog"
    case .catalog: "the catalog cannot be read or written"
    case .openSlotFile: "cannot open a slot file"
    case .allocateSlotFile: "cannot allocate a slot file"
    case .readSlot: "cannot read a slot file"
    case .writeSlot: "cannot write a slot file"
    case .syncSlotFile: "cannot sync a slot file"
    case .identities: "cannot write identities.kvs"
    case .ownerLock: "cannot lock the owner file"
    case .leaseTable: "cannot map the lease table"
    case .removeFile: "cannot remove a file"
    case .device: "copying to or from the device"
    case .randomNumbers: "the kernel gives no random numbers"
    }
  }
}

private func errorText(_ code: Int32) -> String {
  switch code {
  case ELOOP: return "there is a symbolic link, which is not followed"
  case EMEDIUMTYPE: return "what is there is no regular file"
  case EKEYREJECTED: return "the file belongs to another user than its folder"
  case ESTALE: return "another file came in its place meanwhile"
  default: break
  }
  guard let text = unsafe strerror(code) else { return "error \(code)" }
  return unsafe String(cString: text)
}
