internal import Glibc
package import KVCore
internal import KVFile
internal import KVTiers

/// What a process that has the store open holds in memory.
public struct ProcessMemory: Sendable, Equatable {
  /// Bytes of its arena.
  public var hostBytesCapacity: UInt64 = 0
  /// Of these, in slots that hold blocks or are being filled.
  public var hostBytesUsed: UInt64 = 0
  /// Of these, lent to the engine.
  public var hostBytesLent: UInt64 = 0
  /// Blocks with a copy in the arena.
  public var hostBlockCount: UInt64 = 0
  /// Slots of its device tiers.
  public var deviceSlotsCapacity: UInt64 = 0
  /// Of these, in use by sequences.
  public var deviceSlotsUsed: UInt64 = 0
  /// Of these, free but with a block that a restore may share.
  public var deviceSlotsCached: UInt64 = 0
  /// Bytes that it lets the store take on disk, the catalog included.
  public var diskBytesCapacity: UInt64 = 0
  /// Bytes that it lets the archive take; 0 = it has none.
  public var archiveBytesCapacity: UInt64 = 0
  /// Leases of it that hold.
  public var leaseCount: UInt64 = 0

  /// Nothing.
  public init() {}

  /// In the order of the words behind the owner's number; leases are counted by who reads.
  fileprivate static let fields: [any WritableKeyPath<ProcessMemory, UInt64> & Sendable] = [
    \.hostBytesCapacity, \.hostBytesUsed, \.hostBytesLent, \.hostBlockCount,
    \.deviceSlotsCapacity, \.deviceSlotsUsed, \.deviceSlotsCached, \.diskBytesCapacity,
    \.archiveBytesCapacity,
  ]
}

/// What each process publishes of its memory, behind leases and announcements in the shared file.
///
/// 256 entries of 16 words: owner (0 = free, top bit set = being written), then the fields of `ProcessMemory`. A word is written when it
/// has changed, so that an idle store writes nothing. An entry whose owner has ended means nothing and is taken by the next one. Who looks
/// reads the file, and keeps nobody waiting.
///
/// One thread of the process, the follower, writes.
package final class ProcessMemoryTable: Sendable {
  private static let entryCount = 256
  private static let entryByteCount = 128
  static let byteCount = entryCount * entryByteCount
  private static let start = LeaseTable.byteCount + EvictionIntents.byteCount
  private static let busyBit: UInt64 = 1 << 63

  /// nil on a read-only store.
  private let memory: MappedMemory?
  private let owner: OwnerID
  /// Where this process's entry begins; nil as long as it has none.
  private let ownOffset = Monitor<Int?>(nil)

  init(memory: MappedMemory?, owner: OwnerID) {
    self.memory = memory
    self.owner = owner
  }

  /// Takes a free entry, or that of a process that has ended; without one nothing is published.
  func claim(isDead: (OwnerID) -> Bool) {
    guard let memory else { return }
    let ownWord = UInt64(owner.rawValue)
    for step in 0..<Self.entryCount {
      let offset =
        Self.start + (Int(owner.rawValue) + step) % Self.entryCount * Self.entryByteCount
      let old = memory.atomicLoad(at: offset)
      let holder = OwnerID(rawValue: UInt32(truncatingIfNeeded: old & ~Self.busyBit))
      guard old == 0 || isDead(holder) else { continue }
      guard
        memory.atomicCompareExchange(at: offset, expected: old, desired: ownWord | Self.busyBit)
      else { continue }
      for word in 1..<Self.entryByteCount / 8 { memory.atomicStore(0, at: offset + word * 8) }
      memory.atomicStore(ownWord, at: offset)
      ownOffset.withLock { $0 = offset }
      return
    }
  }

  func publish(_ value: ProcessMemory) {
    guard let memory, let offset = ownOffset.withLock({ $0 }) else { return }
    for (index, field) in ProcessMemory.fields.enumerated() {
      let at = offset + (index + 1) * 8
      let word = value[keyPath: field]
      if memory.atomicLoad(at: at) != word { memory.atomicStore(word, at: at) }
    }
  }

  /// At close.
  func release() {
    let offset = ownOffset.withLock { offset in
      defer { offset = nil }
      return offset
    }
    if let offset { memory?.atomicStore(0, at: offset) }
  }

  // MARK: Looking

  /// What the processes have published in the tables at `path`, with their leases that hold at a time (CLOCK_BOOTTIME).
  ///
  /// Owners that have ended may be among them.
  package static func read(_ path: String?, now: UInt64) -> [OwnerID: ProcessMemory] {
    guard let path, let words = words(of: path), words.count * 8 >= start + byteCount else {
      return [:]
    }
    var result: [OwnerID: ProcessMemory] = [:]
    for entry in 0..<entryCount {
      let first = (start + entry * entryByteCount) / 8
      guard let owner = UInt32(exactly: words[first]), owner != 0 else { continue }
      var memory = ProcessMemory()
      for (index, field) in ProcessMemory.fields.enumerated() {
        memory[keyPath: field] = words[first + 1 + index]
      }
      result[OwnerID(rawValue: owner)] = memory
    }
    for entry in LeaseTable.entries(words) where entry.end > now {
      result[entry.owner]?.leaseCount += 1
    }
    return result
  }

  /// The tables at a path, without mapping them; nil when they cannot be read.
  static func words(of path: String) -> [UInt64]? {
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(path, mode: .readOnly)
      var words = [UInt64](repeating: 0, count: (start + byteCount) / 8)
      let wanted = words.count * 8
      let count = unsafe words.withUnsafeMutableBytes { buffer in
        unsafe pread(descriptor.rawValue, buffer.baseAddress, wanted, 0)
      }
      return count == wanted ? words : nil
    } catch {
      return nil
    }
  }
}

extension StoreCore {
  /// What the processes say that have the store open for writing, this one among them.
  func livingProcesses() -> [OwnerID: ProcessMemory] {
    let now = configuration.clock.bootTimeNanoseconds()
    let living = ownerFiles.owners().living
    return ProcessMemoryTable.read(sharedMemory.tablesPath, now: now)
      .filter { living.contains($0.key) }
  }

  /// For other processes to see.
  ///
  /// On the follower's thread.
  func publishMemory() {
    var memory = ProcessMemory()
    state.withLock { state in
      memory.hostBytesUsed = UInt64(state.host.usedByteCount)
      memory.hostBytesLent = UInt64(state.host.lentByteCount)
      memory.hostBlockCount = UInt64(state.host.blockCount)
    }
    memory.hostBytesCapacity = UInt64(effectiveHostBytes)
    var statistics = StoreStatistics()
    deviceMeter.fill(&statistics)
    memory.deviceSlotsCapacity = statistics.deviceSlotsCapacity
    memory.deviceSlotsUsed = statistics.deviceSlotsUsed
    memory.deviceSlotsCached = statistics.deviceSlotsCached
    // A tool that only looks after the store has no wish.
    memory.diskBytesCapacity =
      configuration.holdsToCapacity ? UInt64(configuration.capacityBytes) : 0
    memory.archiveBytesCapacity = UInt64(slotBounds.archive)
    processMemory.publish(memory)
    if let remote { remoteReport?.publish(remote.report) }
  }
}
