import CIORecorder
import Foundation
import KVCore
import KVStore

/// A disk that is away for a while: it answers nothing, or takes no writes.
final class OutageRun {
  private(set) var problems: [String] = []
  private let folder: String
  private let identity: NamespaceIdentity

  private static let blockCount = 4
  private static let byteCount = 60_000

  init(folder: String) {
    self.folder = folder
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = 4
    identity.regionByteCounts = [Self.byteCount]
    self.identity = identity
  }

  private var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(path: folder + "/store")
    configuration.capacityBytes = 96 << 20
    configuration.catalogBytes = 8 << 20
    configuration.hostBytes = 2 << 20
    configuration.offloadTimeoutNanoseconds = 200_000_000
    configuration.waitTimeoutNanoseconds = 200_000_000
    return configuration
  }

  // MARK: A disk that hangs

  /// Every write, sync, opening and read hangs: each call comes back all the same, and nothing is lost once the disk answers again.
  ///
  /// A call that does not come back is ended by SIGALRM, and with it the test.
  func hang() {
    alarm(100)
    defer { alarm(0) }
    run { store, namespace throws(StoreError) in
      iorecorder_hang(1)
      defer { iorecorder_hang(0) }
      self.expect(try namespace.matchedBlockCount(Self.tokens(0)) == Self.blockCount, "match")
      _ = try namespace.touch(Self.tokens(0))
      let restored = try namespace.restore(
        Self.tokens(0),
        first: 0,
        payloadByteCounts: self.payloadByteCounts,
        timeoutNanoseconds: 100_000_000
      )
      self.expect(
        restored.result.outcomes.allSatisfy { $0 == .busy || $0 == .miss },
        "restore answered \(restored.result.outcomes)"
      )
      var isFull = false
      for prompt in UInt32(10)..<100 where !isFull {
        isFull = try namespace.offload(Self.tokens(prompt), payloads: Self.payloads(prompt))
          .outcomes.contains(.busy)
      }
      self.expect(isFull, "offload never said that it is busy")
      self.expectBusy("flush") { () throws(StoreError) in
        _ = try store.flush(timeoutNanoseconds: 100_000_000)
      }
      self.expectBusy("forget") { () throws(StoreError) in
        _ = try namespace.forget(Self.tokens(1))
      }
      self.expectBusy("openNamespace") { () throws(StoreError) in
        var other = self.identity
        other.modelName = "another"
        _ = try store.openNamespace(other)
      }
      _ = try store.statistics()
      var second = self.configuration
      second.path = self.folder + "/second"
      do throws(StoreError) {
        _ = try Store.open(second)
        self.expect(false, "open said that it is done")
      } catch {
        self.expect(error == .locked(.writerStalled), "open: \(error)")
      }
    } afterwards: { store, namespace throws(StoreError) in
      let flushed = try store.flush()
      self.expect(
        flushed.durableBlockCount > 0
          && flushed.droppedErrorBlockCount + flushed.droppedFullBlockCount == 0,
        "\(flushed)"
      )
    }
  }

  // MARK: A read-only file system

  /// Opening for writing is refused with a status; read-only, everything is there.
  func refuseWrites() {
    iorecorderStart()
    defer { iorecorder_stop() }
    do throws(StoreError) {
      try fill(try Store.open(configuration))
      iorecorder_fail(
        iorecorder_count(),
        .max,
        DiskFault.readOnly.kinds,
        DiskFault.readOnly.code,
        0
      )
      do throws(StoreError) {
        _ = try Store.open(configuration)
        expect(false, "opened for writing")
      } catch {
        guard case .io(_, errno: EROFS) = error else { return expect(false, "open: \(error)") }
      }
      var readOnly = configuration
      readOnly.readOnly = true
      let store = try Store.open(readOnly)
      try check(try store.openNamespace(identity), "read-only")
      try store.close()
      iorecorder_fail(0, 0, 0, 0, 0)
      let again = try Store.open(configuration)
      try check(try again.openNamespace(identity), "afterwards")
      try fill(again)
    } catch {
      expect(false, "\(error)")
    }
  }

  // MARK: Small parts

  private func run(
    _ body: (Store, Namespace) throws(StoreError) -> Void,
    afterwards: (Store, Namespace) throws(StoreError) -> Void
  ) {
    iorecorderStart()
    defer { iorecorder_stop() }
    do throws(StoreError) {
      try fill(try Store.open(configuration))
      let store = try Store.open(configuration)
      let namespace = try store.openNamespace(identity)
      try body(store, namespace)
      try afterwards(store, namespace)
      try check(namespace, "afterwards")
      try store.close()
    } catch {
      expect(false, "\(error)")
    }
  }

  private func iorecorderStart() {
    try? FileManager.default.removeItem(atPath: folder)
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    iorecorder_start(folder)
  }

  /// Confirms prompts 0 and, to be forgotten later, 1; closes.
  private func fill(_ store: Store) throws(StoreError) {
    let namespace = try store.openNamespace(identity)
    for prompt in UInt32(0)...1 {
      _ = try namespace.offload(Self.tokens(prompt), payloads: Self.payloads(prompt))
    }
    _ = try store.flush()
    try store.close()
  }

  private func check(_ namespace: Namespace, _ moment: String) throws(StoreError) {
    let (_, payloads) = try namespace.restore(
      Self.tokens(0),
      first: 0,
      payloadByteCounts: payloadByteCounts
    )
    expect(payloads.elementsEqual(Self.payloads(0), by: bytesEqual), "\(moment): blocks or bytes")
  }

  private func expect(_ isRight: Bool, _ text: String) {
    if !isRight { problems.append(text) }
  }

  private func expectBusy(_ name: String, _ body: () throws(StoreError) -> Void) {
    do throws(StoreError) {
      try body()
      expect(false, "\(name) said that it is done")
    } catch {
      expect(error == .busy, "\(name): \(error)")
    }
  }

  private var payloadByteCounts: [Int] { Array(repeating: Self.byteCount, count: Self.blockCount) }

  private static func tokens(_ prompt: UInt32) -> [UInt32] {
    (0..<UInt32(4 * blockCount)).map { prompt * 1000 + $0 }
  }

  private static func payloads(_ prompt: UInt32) -> [[UInt8]] {
    (0..<blockCount).map {
      [UInt8](repeating: UInt8(truncatingIfNeeded: Int(prompt) * 7 + $0), count: byteCount)
    }
  }
}
