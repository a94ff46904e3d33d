internal import Glibc

/// What can go wrong.
///
/// A miss is a result, not an error.
public enum StoreError: Error, Equatable, Sendable {
  /// A caller's argument is out of range; the case says which.
  case invalidArgument(Argument)
  /// The handle was closed.
  case closed
  /// The handle was opened before `fork`.
  case forked
  /// The operating system refused an operation.
  case io(FileAction, errno: Int32)
  /// The file system is full or a disk quota is used up.
  case noSpace(FileAction)
  /// The store's own files are damaged.
  case corrupt(CorruptionReason)
  /// The store was written in another version of the format.
  case versionMismatch(found: UInt32)
  /// The catalog cannot be shared with who holds it.
  case locked(LockReason)
  /// Memory was refused.
  case outOfMemory
  /// A write on a store that was opened read-only.
  case readOnly
  /// Two identity records with one hash.
  case identityCollision
  /// The path holds something else.
  case notAStore
  /// Everything that could leave is leased or in use.
  case full
  /// The deadline passed.
  case busy
  /// An invariant failed: misses only from now on.
  case poisoned

  /// The operating system's number for it; 0 where it has none.
  package var errorNumber: Int32 {
    switch self {
    case .io(_, let errno): errno
    case .noSpace: ENOSPC
    default: 0
    }
  }
}

/// Which argument was wrong.
public enum Argument: Sendable, Equatable {
  case null, structSize, flags, path, capacity, catalogSize, hostTooSmall, capacityTooSmall
  case tokensPerBlock, digestByteCount, regionCount, regionByteCount, extraByteCount
  case identityFieldTooLong, identityMode, parallelism
  case noTokens, tokensNotWholeBlocks, wrongIdentityMode, extraCount
  case blockRange, regionRange, spanCount, spanLength, spanNull, leaseDuration, textNotUTF8,
    namespacesDiffer, namespace, archivePath, archiveSize, priority, pinDuration, timeToLive,
    deviceSlotCount, sequence, sequenceNotEmpty, groups, prefixBlockCount, salt, sectionName,
    sessionName, remote, remoteKey, remoteCredentials, remoteTLS
}

/// What was being done to which file.
public enum FileAction: Sendable, Equatable {
  case folder, createFolder, openCatalog, catalog, openSlotFile, allocateSlotFile, readSlot,
    writeSlot
  case syncSlotFile, identities, ownerLock, leaseTable, removeFile, randomNumbers, device
}

/// What is damaged.
public enum CorruptionReason: Sendable, Equatable {
  case catalogPage, catalogMeta, identityRecord, catalogMissing, nothingToRepair
}

/// Why the catalog cannot be shared.
public enum LockReason: Sendable, Equatable {
  case otherPIDNamespace, otherSharedMemory, readerTableFull, inUse, repairing, writerStalled
  case opening, archiveOfAnother, archiveAway, otherCopy
}
