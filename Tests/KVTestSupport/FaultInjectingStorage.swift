import Glibc
internal import KVCore
package import KVFile
import Synchronization

/// A file system that fails and loses power on command, on top of another one.
///
/// **Faults**: the N-th operation of a kind fails with an errno, after which a short write may have landed.
/// **Power loss**: for each file the bytes that unsynced writes replaced are kept; `crash(seed:)` then keeps each of those
/// writes, drops it, or tears it by sectors of 512 bytes, drops unsynced growth and unsynced directory entries, and makes all open files
/// dead. Not simulated: an unsynced `remove` or `rename` that comes undone. What does not go through this object (LMDB)
/// neither fails nor is lost. A transfer takes the lock, so reads and writes run one after the other.
package final class FaultInjectingStorage: Storage {
  /// One planned fault.
  package struct Fault: Sendable {
    /// Which kind of operation.
    package var operation: FileOperation
    /// Which of them, from 1 on, counted from the object's making.
    package var number: Int
    package var errno: Int32
    /// All later ones of the kind fail too.
    package var isLasting: Bool
    /// Of a failing write, so many leading bytes land.
    package var landedByteCount: Int

    package init(
      _ operation: FileOperation,
      number: Int,
      errno: Int32,
      isLasting: Bool = false,
      landedByteCount: Int = 0
    ) {
      self.operation = operation
      self.number = number
      self.errno = errno
      self.isLasting = isLasting
      self.landedByteCount = landedByteCount
    }
  }

  /// What a write that is not synced yet replaced.
  fileprivate struct UndoEntry {
    var offset: UInt64
    var oldBytes: [UInt8]
  }

  /// What power loss may do to one file.
  fileprivate struct FileLog {
    var undo: [UndoEntry] = []
    /// The size that survives; nil when the size is durable.
    var durableByteCount: UInt64?
  }

  fileprivate struct State {
    var counts: [FileOperation: Int] = [:]
    var faults: [Fault] = []
    var haltAt: (operation: FileOperation, number: Int)?
    var isHalted = false
    /// Moves at each crash: files of an older epoch are dead.
    var epoch = 0
    var readByteCount = 0
    var delayMicroseconds: UInt32 = 0
    var logs: [String: FileLog] = [:]
    /// Files whose directory entry is not durable, and their folder.
    var unsyncedEntries: [String: String] = [:]
  }

  /// Operations that hang.
  private struct Held {
    var operation: FileOperation?
    /// What the paths hold of those that hang.
    var place = ""
    /// So many may go on all the same.
    var passCount = 0
    var waitingCount = 0
  }

  private let base: any Storage
  // Not a Mutex: the thread sanitizer does not see its locking.
  private let state = Monitor(State())
  private let held = Monitor(Held())

  package init(_ base: any Storage = LinuxStorage()) { self.base = base }

  // MARK: Plans

  package func add(_ fault: Fault) { state.withLock { $0.faults.append(fault) } }

  package func removeFaults() { state.withLock { $0.faults = [] } }

  /// From the N-th operation of a kind on, everything fails as if the power had gone, until `crash`.
  package func halt(at operation: FileOperation, number: Int) {
    state.withLock { $0.haltAt = (operation, number) }
  }

  package var isHalted: Bool { state.withLock { $0.isHalted } }

  /// Makes each operation take at least this long.
  package func setDelay(microseconds: UInt32) {
    state.withLock { $0.delayMicroseconds = microseconds }
  }

  /// Lets operations of a kind hang until `release`: a disk that does not answer.
  ///
  /// Those of all files, or of the ones whose path holds `place`.
  package func hold(_ operation: FileOperation, at place: String = "") {
    held.withLock { held in
      held.operation = operation
      held.place = place
    }
  }

  /// Lets so many of those that hang go on, or all of them and those that follow.
  package func release(_ count: Int? = nil) {
    held.withLock { held in
      if let count {
        held.passCount += count
      } else {
        held.operation = nil
        held.passCount = 0
      }
    }
    held.notifyAll()
  }

  /// Waits until so many operations hang; false when that takes longer than half a minute.
  package func waitUntilHeld(_ count: Int) -> Bool {
    let isHeld: Bool? = held.wait(until: deadline(after: 30_000_000_000)) { held in
      held.waitingCount >= count ? true : nil
    }
    return isHeld ?? false
  }

  /// Operations that hang now.
  package var heldCount: Int { held.withLock { $0.waitingCount } }

  /// Hangs while operations of this kind are held; outside of the other lock, so that the others go on.
  fileprivate func passHold(_ operation: FileOperation, _ path: String) {
    let isHeld = held.withLock { held in
      guard held.operation == operation, held.place.isEmpty || path.contains(held.place) else {
        return false
      }
      held.waitingCount += 1
      return true
    }
    guard isHeld else { return }
    held.notifyAll()
    let _: Bool? = held.wait(until: nil) { held in
      if held.operation == operation {
        guard held.passCount > 0 else { return nil }
        held.passCount -= 1
      }
      held.waitingCount -= 1
      return true
    }
  }

  /// How many operations of a kind were tried.
  package func count(of operation: FileOperation) -> Int {
    state.withLock { $0.counts[operation] ?? 0 }
  }

  /// Bytes that reads have asked for.
  package var readByteCount: Int { state.withLock { $0.readByteCount } }

  // MARK: Power loss

  /// Loses power: what was not synced is kept, dropped or torn as the seed says.
  ///
  /// Afterwards the files can be opened again.
  package func crash(seed: UInt64) throws(FileError) {
    try state.withLock { state throws(FileError) in
      var generator = SeededGenerator(seed: seed)
      state.epoch += 1
      state.isHalted = false
      state.haltAt = nil
      // Sorted, so that a seed gives the same outcome each time.
      for (path, log) in state.logs.sorted(by: { $0.key < $1.key }) where try base.fileExists(path)
      {
        try undo(log, of: path, &generator)
      }
      for path in state.unsyncedEntries.keys.sorted() where Bool.random(using: &generator) {
        if try base.fileExists(path) { try base.remove(path) }
      }
      state.logs = [:]
      state.unsyncedEntries = [:]
    }
  }

  private func undo(
    _ log: FileLog,
    of path: String,
    _ generator: inout SeededGenerator
  ) throws(FileError) {
    let file = try base.openFile(path, mode: .existing, direct: false)
    // Newest first: old bytes come back in the order in which they were replaced.
    for entry in log.undo.reversed() {
      switch UInt8.random(in: 0..<3, using: &generator) {
      case 0: continue
      case 1: try Self.restore(entry.oldBytes[...], at: entry.offset, in: file)
      default:
        var start = 0
        while start < entry.oldBytes.count {
          let sectorEnd = (Int(entry.offset) + start) / 512 * 512 + 512 - Int(entry.offset)
          let end = min(sectorEnd, entry.oldBytes.count)
          if Bool.random(using: &generator) {
            try Self.restore(
              entry.oldBytes[start..<end],
              at: entry.offset + UInt64(start),
              in: file
            )
          }
          start = end
        }
      }
    }
    try file.sync()
    if let byteCount = log.durableByteCount, Bool.random(using: &generator) {
      guard truncate(path, Int(byteCount)) == 0 else { throw FileError(.write, errno: errno) }
    }
  }

  private static func restore(
    _ bytes: ArraySlice<UInt8>,
    at offset: UInt64,
    in file: any StorageFile
  ) throws(FileError) {
    let error: FileError? = bytes.withUnsafeBytes { buffer in
      do throws(FileError) { try file.write(buffer, at: offset) } catch { return error }
      return nil
    }
    if let error { throw error }
  }

  // MARK: Counting and failing

  /// Counts an operation and fails it if it is its turn.
  fileprivate static func enter(
    _ operation: FileOperation,
    _ state: inout State
  ) -> Fault? {
    if state.delayMicroseconds > 0 { usleep(state.delayMicroseconds) }
    let number = (state.counts[operation] ?? 0) + 1
    state.counts[operation] = number
    if let halt = state.haltAt, halt.operation == operation, number >= halt.number {
      state.isHalted = true
    }
    if state.isHalted { return Fault(operation, number: number, errno: EIO) }
    return state.faults.first {
      $0.operation == operation && ($0.isLasting ? number >= $0.number : number == $0.number)
    }
  }

  fileprivate func run<Result>(
    _ operation: FileOperation,
    _ pathKind: PathKind = .file,
    _ body: (inout State) throws(FileError) -> Result
  ) throws(FileError) -> Result {
    try state.withLock { state throws(FileError) in
      if let fault = Self.enter(operation, &state) {
        throw FileError(operation, pathKind, errno: fault.errno)
      }
      return try body(&state)
    }
  }

  // MARK: Storage

  private var place: Place { Place(storage: self, base: base, prefix: "") }

  package var folder: OpenFolder? { base.folder }

  package func openFolder(_ path: String) throws(FileError) -> any Storage {
    try place.openFolder(path)
  }

  package func openFile(
    _ path: String,
    mode: OpenMode,
    direct: Bool
  ) throws(FileError) -> any StorageFile {
    try place.openFile(path, mode: mode, direct: direct)
  }

  package func makeDirectory(_ path: String) throws(FileError) { try place.makeDirectory(path) }

  package func remove(_ path: String) throws(FileError) { try place.remove(path) }

  package func rename(_ path: String, to newPath: String) throws(FileError) {
    try place.rename(path, to: newPath)
  }

  package func link(_ path: String, to newPath: String) throws(FileError) {
    try place.link(path, to: newPath)
  }

  package func syncDirectory(_ path: String) throws(FileError) { try place.syncDirectory(path) }

  package func freeByteCount(_ path: String) throws(FileError) -> UInt64 {
    try base.freeByteCount(path)
  }

  package func fileExists(_ path: String) throws(FileError) -> Bool { try base.fileExists(path) }

  package func list(_ path: String) throws(FileError) -> [String] { try place.list(path) }

  /// A folder that is open; what it does counts and fails with everything else.
  private struct Place: Storage {
    let storage: FaultInjectingStorage
    let base: any Storage
    /// From the outermost folder, with its slash.
    let prefix: String

    var folder: OpenFolder? { base.folder }

    func openFolder(_ path: String) throws(FileError) -> any Storage {
      Place(storage: storage, base: try base.openFolder(path), prefix: prefix + path + "/")
    }

    func openFile(
      _ path: String,
      mode: OpenMode,
      direct: Bool
    ) throws(FileError) -> any StorageFile {
      try storage.run(.open) { state throws(FileError) in
        let isNew = try !base.fileExists(path)
        let file = try base.openFile(path, mode: mode, direct: direct)
        if isNew { state.unsyncedEntries[prefix + path] = parent(of: prefix + path) }
        return FaultInjectingFile(
          file,
          path: prefix + path,
          storage: storage,
          epoch: state.epoch
        )
      }
    }

    private func parent(of path: String) -> String {
      guard let slash = path.lastIndex(of: "/") else { return "." }
      return String(path[..<slash])
    }

    func makeDirectory(_ path: String) throws(FileError) {
      try storage.run(.makeDirectory, .directory) { _ throws(FileError) in
        try base.makeDirectory(path)
      }
    }

    func remove(_ path: String) throws(FileError) {
      try storage.run(.remove) { state throws(FileError) in
        try base.remove(path)
        state.logs[prefix + path] = nil
        state.unsyncedEntries[prefix + path] = nil
      }
    }

    func rename(_ path: String, to newPath: String) throws(FileError) {
      try storage.run(.rename) { state throws(FileError) in
        try base.rename(path, to: newPath)
        let (old, new) = (prefix + path, prefix + newPath)
        state.logs[new] = state.logs.removeValue(forKey: old)
        if state.unsyncedEntries.removeValue(forKey: old) != nil {
          state.unsyncedEntries[new] = parent(of: new)
        }
      }
    }

    func link(_ path: String, to newPath: String) throws(FileError) {
      try storage.run(.rename) { _ throws(FileError) in try base.link(path, to: newPath) }
    }

    func syncDirectory(_ path: String) throws(FileError) {
      let whole = path == "." && !prefix.isEmpty ? String(prefix.dropLast()) : prefix + path
      try storage.run(.sync, .directory) { state throws(FileError) in
        try base.syncDirectory(path)
        state.unsyncedEntries = state.unsyncedEntries.filter { $0.value != whole }
      }
    }

    func freeByteCount(_ path: String) throws(FileError) -> UInt64 {
      try base.freeByteCount(path)
    }

    func fileExists(_ path: String) throws(FileError) -> Bool { try base.fileExists(path) }

    func list(_ path: String) throws(FileError) -> [String] {
      try storage.run(.list, .directory) { _ throws(FileError) in try base.list(path) }
    }
  }

  // MARK: For its files

  fileprivate func run<Result>(
    _ operation: FileOperation,
    epoch: Int,
    _ body: (inout State) throws(FileError) -> Result
  ) throws(FileError) -> Result {
    try run(operation) { state throws(FileError) in
      guard state.epoch == epoch else { throw FileError(operation, errno: EIO) }
      return try body(&state)
    }
  }

  fileprivate func write(
    _ buffers: [UnsafeRawBufferPointer],
    at offset: UInt64,
    to file: any StorageFile,
    path: String,
    epoch: Int
  ) throws(FileError) {
    try state.withLock { state throws(FileError) in
      guard state.epoch == epoch else { throw FileError(.write, errno: EIO) }
      let fault = Self.enter(.write, &state)
      let byteCount = buffers.reduce(0) { $0 + $1.count }
      let landing = fault.map { min($0.landedByteCount, byteCount) } ?? byteCount
      if landing > 0 {
        try log(landing, at: offset, of: file, path: path, in: &state)
        if fault == nil {
          try file.write(buffers, at: offset)
        } else {
          let bytes = buffers.flatMap { Array($0) }.prefix(landing)
          try Self.restore(bytes[...], at: offset, in: file)
        }
      }
      if let fault { throw FileError(.write, errno: fault.errno) }
    }
  }

  /// Keeps what a write is about to replace.
  private func log(
    _ byteCount: Int,
    at offset: UInt64,
    of file: any StorageFile,
    path: String,
    in state: inout State
  ) throws(FileError) {
    let size = try file.byteCount()
    let replacedByteCount = Int(min(UInt64(byteCount), size > offset ? size - offset : 0))
    var old = [UInt8](repeating: 0, count: replacedByteCount)
    let error: FileError? = old.withUnsafeMutableBytes { buffer in
      do throws(FileError) { try file.read(into: buffer, at: offset) } catch { return error }
      return nil
    }
    if let error { throw error }
    // Beyond the old end zeros come back: a size that survived without its data.
    old += [UInt8](repeating: 0, count: byteCount - replacedByteCount)
    if offset + UInt64(byteCount) > size { noteGrowth(of: path, from: size, in: &state) }
    state.logs[path, default: FileLog()].undo.append(UndoEntry(offset: offset, oldBytes: old))
  }

  fileprivate func noteGrowth(of path: String, from size: UInt64, in state: inout State) {
    if state.logs[path]?.durableByteCount == nil {
      state.logs[path, default: FileLog()].durableByteCount = size
    }
  }

  fileprivate func noteSynced(_ path: String, in state: inout State) { state.logs[path] = nil }
}

/// A file of `FaultInjectingStorage`.
private final class FaultInjectingFile: StorageFile {
  private let base: any StorageFile
  private let path: String
  private let storage: FaultInjectingStorage
  private let epoch: Int
  /// As the real file: after a failed sync nothing may be written.
  private let isSuspect = Atomic(false)

  init(_ base: any StorageFile, path: String, storage: FaultInjectingStorage, epoch: Int) {
    self.base = base
    self.path = path
    self.storage = storage
    self.epoch = epoch
  }

  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) {
    storage.passHold(.read, path)
    try storage.run(.read, epoch: epoch) { state throws(FileError) in
      state.readByteCount += bytes.count
      try base.read(into: bytes, at: offset)
    }
  }

  func read(into buffers: [UnsafeMutableRawBufferPointer], at offset: UInt64) throws(FileError) {
    storage.passHold(.read, path)
    try storage.run(.read, epoch: epoch) { state throws(FileError) in
      state.readByteCount += buffers.reduce(0) { $0 + $1.count }
      try base.read(into: buffers, at: offset)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) {
    try write([bytes], at: offset)
  }

  func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(FileError) {
    try checkWritable(.write)
    storage.passHold(.write, path)
    try storage.write(buffers, at: offset, to: base, path: path, epoch: epoch)
  }

  func sync() throws(FileError) {
    try checkWritable(.sync)
    storage.passHold(.sync, path)
    do throws(FileError) {
      try storage.run(.sync, epoch: epoch) { state throws(FileError) in
        try base.sync()
        storage.noteSynced(path, in: &state)
      }
    } catch {
      isSuspect.store(true, ordering: .relaxed)
      throw error
    }
  }

  func allocate(byteCount: UInt64) throws(FileError) {
    try checkWritable(.allocate)
    storage.passHold(.allocate, path)
    try storage.run(.allocate, epoch: epoch) { state throws(FileError) in
      let size = try base.byteCount()
      try base.allocate(byteCount: byteCount)
      if byteCount > size { storage.noteGrowth(of: path, from: size, in: &state) }
    }
  }

  func byteCount() throws(FileError) -> UInt64 { try base.byteCount() }
  func allocatedByteCount() throws(FileError) -> UInt64 { try base.allocatedByteCount() }
  func hasData() throws(FileError) -> Bool { try base.hasData() }
  func identity() throws(FileError) -> FileIdentity { try base.identity() }
  var isDirect: Bool { base.isDirect }
  func dropPageCache() throws(FileError) { try base.dropPageCache() }
  func close() { base.close() }

  private func checkWritable(_ operation: FileOperation) throws(FileError) {
    guard !isSuspect.load(ordering: .relaxed) else { throw FileError(operation, errno: EIO) }
  }
}
