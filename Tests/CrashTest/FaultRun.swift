import CIORecorder
import Foundation
import KVCatalog
import KVCore
import KVStore

/// What the disk answers in place of doing as it is told.
enum DiskFault: String, CaseIterable {
  case ioError, noSpace, quota, readOnly, short

  /// 0: a write that is shorter than asked, and says so.
  var code: Int32 {
    switch self {
    case .ioError: EIO
    case .noSpace: ENOSPC
    case .quota: EDQUOT
    case .readOnly: EROFS
    case .short: 0
    }
  }

  /// Which operations it befalls.
  var kinds: UInt32 {
    let all: [TraceOperation.Kind] =
      switch self {
      case .ioError:
        [
          .write, .resize, .sync, .syncDirectory, .create, .makeDirectory, .remove, .rename, .open,
          .openToRead,
        ]
      case .noSpace, .quota: [.write, .resize, .create, .makeDirectory, .sync]
      case .readOnly: [.write, .resize, .create, .makeDirectory, .remove, .rename, .open]
      case .short: [.write]
      }
    return all.reduce(0) { $0 | 1 << $1.rawValue }
  }
}

/// One use of a store in which the disk refuses from some operation on, and then is well again.
///
/// Whatever fails, fails with a status; what was confirmed stays; and the same handles work once the fault is over.
final class FaultRun {
  let fault: DiskFault
  let number: Int
  let count: Int
  private(set) var problems: [String] = []
  /// Operations that failed; 0 = the use was over before operation `number`.
  private(set) var failedOperationCount = 0
  private(set) var errors: Set<String> = []
  /// The handles had to be closed and opened again before the store took blocks.
  private(set) var neededReopen = false

  private let path: String
  private var store: Store?
  private var namespaces: [Int: Namespace] = [:]
  private var confirmed: [Int: Set<UInt32>] = [:]

  private static let identities: [NamespaceIdentity] = [[30_000, 9000], [3000], [90_000]].map {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = 4
    identity.regionByteCounts = $0
    return identity
  }

  init(_ fault: DiskFault, number: Int, count: Int, folder: String) throws {
    self.fault = fault
    self.number = number
    self.count = count
    path = folder + "/store"
    try? FileManager.default.removeItem(atPath: folder)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    iorecorder_start(folder)
    defer { iorecorder_stop() }
    run()
  }

  private var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(path: path)
    configuration.capacityBytes = 96 << 20
    configuration.catalogBytes = 8 << 20
    configuration.hostBytes = 32 << 20
    configuration.commitIntervalNanoseconds = 1 << 62
    return configuration
  }

  private func run() {
    do throws(StoreError) {
      try open()
      for prompt in UInt32(0)..<4 { try offload(prompt, in: prompt.isMultiple(of: 2) ? 0 : 1) }
      guard try flush() else { return complain("a flush without a fault dropped blocks") }
    } catch {
      return complain("without a fault: \(error)")
    }
    iorecorder_fail(iorecorder_count() + number, count, fault.kinds, fault.code, 4096)
    useWhileFailing()
    failedOperationCount = iorecorder_failure_count()
    iorecorder_fail(0, 0, 0, 0, 0)
    checkAfterwards()
  }

  // MARK: While the disk refuses

  private func useWhileFailing() {
    attempt { () throws(StoreError) in
      try self.offload(10, in: 0)
      try self.offload(11, in: 1)
      _ = try self.flush()
    }
    attempt { () throws(StoreError) in
      // Its first: an identity, a namespace, a slot file of another size.
      try self.offload(12, in: 2)
      _ = try self.flush()
    }
    attempt { () throws(StoreError) in
      self.confirmed[0]?.remove(2)
      _ = try self.namespace(0).forget(Self.tokens(2))
    }
    attempt { () throws(StoreError) in
      _ = try self.namespace(0).touch(Self.tokens(0))
      self.checkConfirmed("while the disk refuses")
    }
    attempt { () throws(StoreError) in
      self.namespaces = [:]
      defer { self.store = nil }
      try self.store?.close()
    }
    attempt { () throws(StoreError) in try self.open() }
    attempt { () throws(StoreError) in
      try self.offload(13, in: 0)
      _ = try self.flush()
    }
  }

  private func attempt(_ body: () throws(StoreError) -> Void) {
    pending = [:]
    do throws(StoreError) { try body() } catch {
      switch error {
      case .io, .noSpace, .full, .busy: errors.insert("\(error)")
      // A store that did not open again.
      case .closed where store == nil: break
      default: complain("\(error), which is no answer to \(fault)")
      }
    }
  }

  // MARK: Afterwards

  private func checkAfterwards() {
    do throws(StoreError) {
      if store == nil { try open() }
      if !takesBlocks(20) {
        neededReopen = true
        try reopen()
        guard takesBlocks(21) else { return complain("takes no blocks after the fault") }
      }
      checkConfirmed("after the fault")
      try reopen()
      checkConfirmed("after the fault and a reopening")
      try store?.close()
    } catch {
      return complain("after the fault: \(error)")
    }
    do throws(CatalogError) {
      var options = CatalogOptions(path: path + "/catalog.mdb")
      // The link to the lock file of a process that was killed may lead nowhere by now.
      options.lock = .none
      let catalog = try Catalog(options)
      for problem in try catalog.read({ (transaction) throws(CatalogError) in
        try transaction.checkInvariants()
      }) { complain("catalog: " + problem) }
      catalog.close()
    } catch {
      complain("catalog: \(error)")
    }
  }

  private func takesBlocks(_ prompt: UInt32) -> Bool {
    do throws(StoreError) {
      pending = [:]
      // What was dropped before is reported by this one.
      _ = try? store?.flush()
      for number in Self.identities.indices { try offload(prompt, in: number) }
      return try flush()
    } catch {
      return false
    }
  }

  private func reopen() throws(StoreError) {
    namespaces = [:]
    let old = store
    store = nil
    // What could not be written is reported here once more; the handle is closed all the same.
    do throws(StoreError) { try old?.close() } catch { errors.insert("\(error)") }
    try open()
  }

  private func checkConfirmed(_ moment: String) {
    for (number, prompts) in confirmed {
      for prompt in prompts.sorted() {
        do throws(StoreError) {
          let byteCount = Self.identities[number].regionByteCounts.reduce(0, +)
          let (_, payloads) = try namespace(number).restore(
            Self.tokens(prompt),
            first: 0,
            payloadByteCounts: Array(repeating: byteCount, count: Self.blockCount)
          )
          if payloads.count < Self.blockCount {
            complain(
              "\(moment): \(payloads.count) blocks of prompt \(prompt) of namespace \(number)"
            )
          }
          for (block, payload) in payloads.enumerated()
          where !bytesEqual(payload, Self.payload(prompt, block, number)) {
            complain("\(moment): wrong bytes of prompt \(prompt) of namespace \(number)")
          }
        } catch {
          complain("\(moment): \(error)")
        }
      }
    }
  }

  // MARK: Small parts

  private static let blockCount = 3
  /// Taken since the last flush.
  private var pending: [Int: Set<UInt32>] = [:]

  private func open() throws(StoreError) { store = try Store.open(configuration) }

  private func namespace(_ number: Int) throws(StoreError) -> Namespace {
    if let opened = namespaces[number] { return opened }
    guard let store else { throw .closed }
    let opened = try store.openNamespace(Self.identities[number])
    namespaces[number] = opened
    return opened
  }

  private func offload(_ prompt: UInt32, in number: Int) throws(StoreError) {
    let result = try namespace(number).offload(
      Self.tokens(prompt),
      payloads: (0..<Self.blockCount).map { Self.payload(prompt, $0, number) }
    )
    guard result.doneBlockCount == Self.blockCount else { throw .full }
    pending[number, default: []].insert(prompt)
  }

  /// Whether everything that is pending is confirmed now.
  private func flush() throws(StoreError) -> Bool {
    guard let store else { throw .closed }
    let flushed = try store.flush()
    let wanted = pending.values.reduce(0) { $0 + $1.count } * Self.blockCount
    guard flushed.durableBlockCount >= wanted,
      flushed.droppedFullBlockCount + flushed.droppedParentBlockCount
        + flushed.droppedErrorBlockCount == 0
    else { return false }
    for (number, prompts) in pending { confirmed[number, default: []].formUnion(prompts) }
    pending = [:]
    return true
  }

  private static func tokens(_ prompt: UInt32) -> [UInt32] {
    (0..<UInt32(4 * blockCount)).map { prompt * 1000 + $0 }
  }

  private static func payload(_ prompt: UInt32, _ block: Int, _ number: Int) -> [UInt8] {
    let byteCount = identities[number].regionByteCounts.reduce(0, +)
    return [UInt8](
      repeating: UInt8(truncatingIfNeeded: Int(prompt) * 7 + block * 3 + number),
      count: byteCount
    )
  }

  private func complain(_ text: String) {
    if problems.count < 8 { problems.append(text) }
  }
}
