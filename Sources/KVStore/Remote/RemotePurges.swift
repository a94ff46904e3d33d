internal import KVCore
internal import KVFile
internal import KVRemote

/// Purges that have not reached the other side: a file each in the store's folder `remote`, so that none is forgotten.
///
/// The file is synced before anything of the store is removed, and goes when the other side has confirmed. Names are never given twice (owner and
/// number), so several processes may add some; who opens the store next takes over what is left.
final class RemotePurges: Sendable {
  /// What is to go there.
  enum Purge: Equatable {
    /// All names that begin with this.
    case all(RemoteName)
    case names([RemoteName])

    /// Whether it is of this namespace, all or some of it.
    func isOf(_ namespace: RemoteNamespace) -> Bool {
      switch self {
      case .all(let prefix): prefix == namespace.prefix
      case .names(let names): names.first?.text.hasPrefix(namespace.prefix.text) ?? false
      }
    }
  }

  private struct State {
    var pending: [(file: String, purge: Purge)] = []
    var addedCount: UInt64 = 0
    var isRunning = false
    /// Purges of this process that have begun, ever, and those whose blocks are being removed here.
    var begunCount: UInt64 = 0
    var activeCount = 0
    /// Chunks that are let in at the moment.
    var enteringCount = 0
  }

  static let folderName = "remote"
  private static let magic: [UInt8] = Array("KVSPRG".utf8) + [1, 10]
  private static let byteCountMax = 256 << 20

  private let files: any Storage
  /// The folder, once it is there.
  private let folder = Monitor<(any Storage)?>(nil)
  private let owner: OwnerID
  private let state = Monitor(State())
  private let pool = ServicePool(threadCount: 1)

  /// - Parameters:
  ///   - files: of the store.
  ///   - owner: this process.
  ///   - isDead: whether the process of a number has ended.
  init(_ files: any Storage, owner: OwnerID, isDead: (OwnerID) -> Bool) {
    self.files = files
    self.owner = owner
    do throws(FileError) {
      guard try files.fileExists(Self.folderName) else { return }
      let folder = try openFolder()
      for name in try folder.list(".").sorted() {
        if let purge = try read(name, in: folder) {
          state.withLock { $0.pending.append((name, purge)) }
        } else if Self.owner(of: name).map(isDead) ?? true {
          // Cut by a crash: its purge was not reported. One of somebody who lives is being written.
          try folder.remove(name)
        }
      }
    } catch {
      // The next open sees them.
    }
  }

  /// Whose purge a file is.
  private static func owner(of file: String) -> OwnerID? {
    let parts = file.split(separator: "-")
    return parts.count == 3 ? UInt32(parts[1]).map(OwnerID.init(rawValue:)) : nil
  }

  var pendingCount: Int { state.withLock { $0.pending.count } }

  // MARK: What comes meanwhile

  /// From here on nothing comes in that was on its way; what was let in before is, for the purge to find.
  func begin() throws(StoreError) {
    state.withLock { state in
      state.begunCount += 1
      state.activeCount += 1
    }
    // Each ends by the deadline of its offload.
    let limit = KVCore.deadline(after: 60_000_000_000)
    let isDone: Void? = state.wait(until: limit) { $0.enteringCount == 0 ? () : nil }
    guard isDone != nil else {
      end()
      throw .busy
    }
  }

  /// The blocks are gone here, and what is to go there is queued.
  func end() { state.withLock { $0.activeCount -= 1 } }

  var begunCount: UInt64 { state.withLock { $0.begunCount } }

  /// Whether something of a namespace is to go there and has not: it must not come back from there.
  func holdsBack(_ namespace: RemoteNamespace) -> Bool {
    let (isOwn, known) = state.withLock { state in
      (
        state.activeCount > 0 || state.pending.contains { $0.purge.isOf(namespace) },
        Set(state.pending.map(\.file))
      )
    }
    return isOwn || isHeldByOthers(namespace, but: known)
  }

  /// The same of other processes that have the store open: each file is one of their purges.
  private func isHeldByOthers(_ namespace: RemoteNamespace, but known: Set<String>) -> Bool {
    do throws(FileError) {
      guard try files.fileExists(Self.folderName) else { return false }
      let folder = try openFolder()
      for name in try folder.list(".") where !known.contains(name) {
        if try read(name, in: folder)?.isOf(namespace) == true { return true }
      }
    } catch {
      // A file that has just gone: its purge is done.
    }
    return false
  }

  /// Whether a chunk may be let in by who began after so many purges; then `endEntering` follows.
  func beginEntering(_ namespace: RemoteNamespace, since begunCount: UInt64) -> Bool {
    guard !holdsBack(namespace) else { return false }
    return state.withLock { state in
      guard state.activeCount == 0, state.begunCount == begunCount else { return false }
      state.enteringCount += 1
      return true
    }
  }

  func endEntering() {
    state.withLock { $0.enteringCount -= 1 }
    state.notifyAll()
  }

  // MARK: Files

  /// Opened once: nothing depends on its name any more then.
  private func openFolder() throws(FileError) -> any Storage {
    if let known = folder.withLock({ $0 }) { return known }
    let opened = try files.openFolder(Self.folderName)
    folder.withLock { $0 = opened }
    return opened
  }

  /// Queues a purge durably.
  func add(_ purge: Purge) throws(FileError) {
    if try !files.fileExists(Self.folderName) {
      try files.makeDirectory(Self.folderName)
      try files.syncDirectory(".")
    }
    let number = state.withLock { state in
      state.addedCount += 1
      return state.addedCount
    }
    let folder = try openFolder()
    let path = "purge-\(owner.rawValue)-\(number)"
    let file = try folder.openFile(path, mode: .createNew, direct: false)
    defer { file.close() }
    let bytes = Self.encode(purge)
    try unsafe bytes.span.withUnsafeBytes { (bytes) throws(FileError) in
      try unsafe file.write(bytes, at: 0)
    }
    try file.sync()
    try folder.syncDirectory(".")
    state.withLock { $0.pending.append((path, purge)) }
  }

  /// Lets a thread of their own do what is pending, until it is done or the tier stops.
  func start(_ tier: RemoteTier) {
    let mustStart = state.withLock { state in
      guard !state.pending.isEmpty, !state.isRunning else { return false }
      state.isRunning = true
      return true
    }
    guard mustStart else { return }
    let refusal = pool.submit { [self, unowned tier] in run(tier) }
    if refusal != nil { state.withLock { $0.isRunning = false } }
  }

  func stop() { pool.stop() }

  private func run(_ tier: RemoteTier) {
    var pause: UInt64 = 1_000_000_000
    while !tier.cancellation.isCancelled {
      let next = state.withLock { state in
        if state.pending.isEmpty { state.isRunning = false }
        return state.pending.first
      }
      guard let next else { return }
      // What was read for sending before is there by then.
      tier.waitForSends()
      do throws(RemoteError) {
        try perform(next.purge, tier)
        do throws(FileError) { try openFolder().remove(next.file) } catch {
          // It is done once more after the next open.
        }
        state.withLock { state in _ = state.pending.removeFirst() }
        pause = 1_000_000_000
      } catch {
        tier.note(error)
        let end = KVCore.deadline(after: pause)
        while monotonicNanoseconds() < end, !tier.cancellation.isCancelled {
          let _: Void? = state.wait(until: KVCore.deadline(after: 20_000_000)) { _ in nil }
        }
        pause = min(pause * 2, 30_000_000_000)
      }
    }
  }

  private func perform(_ purge: Purge, _ tier: RemoteTier) throws(RemoteError) {
    // The breaker does not keep it from trying: nobody waits for it.
    switch purge {
    case .names(let names):
      var rest = names[...]
      while !rest.isEmpty {
        _ = try tier.objects.remove(Array(rest.prefix(512)), deadline: tier.transferDeadline)
        rest = rest.dropFirst(512)
      }
    case .all(let prefix):
      var cursor: ListCursor?
      repeat {
        let page = try tier.objects.list(
          prefix: prefix,
          after: cursor,
          deadline: tier.transferDeadline
        )
        if !page.names.isEmpty {
          _ = try tier.objects.remove(page.names, deadline: tier.transferDeadline)
        }
        cursor = page.next
      } while cursor != nil && !tier.cancellation.isCancelled
      if tier.cancellation.isCancelled { throw .closed }
    }
    tier.state.withLock { $0.forgetKnown() }
  }

  // MARK: The file

  private static func encode(_ purge: Purge) -> [UInt8] {
    let (kind, names): (UInt32, [RemoteName]) =
      switch purge {
      case .all(let prefix): (1, [prefix])
      case .names(let names): (2, names)
      }
    var writer = ByteWriter(capacity: names.count * 80 + 24)
    writer.append(contentsOf: magic)
    writer.append(kind)
    writer.append(UInt32(names.count))
    for name in names {
      writer.append(UInt16(name.text.utf8.count))
      writer.append(contentsOf: Array(name.text.utf8))
    }
    writer.append(unsafe writer.bytes.withUnsafeBytes { xxh3Checksum($0) })
    return writer.bytes
  }

  /// nil for a file that is not whole.
  private func read(_ name: String, in folder: any Storage) throws(FileError) -> Purge? {
    let file = try folder.openFile(name, mode: .readOnly, direct: false)
    defer { file.close() }
    let byteCount = try file.byteCount()
    guard (24...UInt64(Self.byteCountMax)).contains(byteCount) else { return nil }
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(byteCount), alignment: 8)
    defer { unsafe memory.deallocate() }
    try unsafe file.read(into: memory, at: 0)
    return unsafe Self.decode(Array(memory))
  }

  static func decode(_ bytes: [UInt8]) -> Purge? {
    guard bytes.count >= 24 else { return nil }
    return unsafe bytes.withUnsafeBytes { bytes in
      let body = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 8)])
      var sum = unsafe ByteReader(bytes, offset: body.count)
      guard sum.read(UInt64.self) == xxh3Checksum(body) else { return nil }
      var reader = unsafe ByteReader(body)
      guard reader.readBytes(8) == magic, let kind = reader.read(UInt32.self),
        let count = reader.read(UInt32.self), Int(count) <= body.count
      else { return nil }
      var names: [RemoteName] = []
      for _ in 0..<count {
        guard let length = reader.read(UInt16.self), let text = reader.readBytes(Int(length)),
          text.starts(with: Array(RemoteNamespace.allPrefix.text.utf8))
        else { return nil }
        names.append(RemoteName(String(decoding: text, as: UTF8.self)))
      }
      guard reader.remainingByteCount == 0 else { return nil }
      switch (kind, names.count) {
      case (1, 1): return .all(names[0])
      case (2, _): return .names(names)
      default: return nil
      }
    }
  }
}
