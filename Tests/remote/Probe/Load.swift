import KVCore
import KVRedis
import KVRemote
import Synchronization

/// Four threads that write, look up and read for some seconds, whatever becomes of the servers meanwhile.
final class Load: Sendable {
  private let objects: RedisObjects
  private let prefix: String
  private let end: UInt64
  private let callCount = Atomic(0)
  private let failureCount = Atomic(0)
  private let soundCount = Atomic(0)
  private let damagedCount = Atomic(0)
  /// Found missing although stored; eviction and a failover may do that.
  private let lostCount = Atomic(0)
  private let longest = Atomic<UInt64>(0)
  private static let deadlineMilliseconds: UInt64 = 500
  private static let byteCount = 50_000

  init(_ objects: RedisObjects, prefix: String, seconds: Double) {
    self.objects = objects
    self.prefix = prefix
    end = deadline(after: UInt64(seconds * 1e9))
  }

  func run() -> String {
    let threads = (0..<4).compactMap { number in ServiceThread.start { self.work(number) } }
    for thread in threads { thread.join() }
    func value(_ counter: borrowing Atomic<Int>) -> Int { counter.load(ordering: .relaxed) }
    return "calls=\(value(callCount)) failures=\(value(failureCount)) sound=\(value(soundCount))"
      + " damaged=\(value(damagedCount)) lost=\(value(lostCount))"
      + " longest=\(longest.load(ordering: .relaxed) / 1_000_000)"
  }

  private func timed(_ body: (UInt64) throws(RemoteError) -> Void) -> Bool {
    let start = monotonicNanoseconds()
    var isDone = true
    do throws(RemoteError) {
      try body(deadline(after: Self.deadlineMilliseconds * 1_000_000))
    } catch {
      isDone = false
      failureCount.add(1, ordering: .relaxed)
    }
    callCount.add(1, ordering: .relaxed)
    longest.max(monotonicNanoseconds() - start, ordering: .relaxed)
    return isDone
  }

  private func work(_ number: Int) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.byteCount, alignment: 64)
    defer { memory.deallocate() }
    var stored: [RemoteName] = []
    var step = 0
    while monotonicNanoseconds() < end {
      step += 1
      let name = RemoteName("\(prefix):\(number):\(step)")
      let object = Object(name.text, byteCount: Self.byteCount)
      let isStored = timed { limit throws(RemoteError) in
        _ = try objects.putIfAbsent(
          name,
          pieces: object.pieces(3),
          timeToLiveMilliseconds: 600_000,
          deadline: limit
        )
      }
      if isStored { stored.append(name) }
      let asked = stored.suffix(16)
      _ = timed { limit throws(RemoteError) in _ = try objects.exist(Array(asked), deadline: limit)
      }
      guard let wanted = asked.randomElement() else { continue }
      _ = timed { limit throws(RemoteError) in
        try objects.get([wanted], deadline: limit) { _, byteCount in
          byteCount == memory.count ? memory : nil
        } done: { _, read in
          switch read {
          case .whole:
            let isSound = Object(wanted.text, byteCount: Self.byteCount).isEqual(memory)
            if isSound {
              soundCount.add(1, ordering: .relaxed)
            } else {
              damagedCount.add(1, ordering: .relaxed)
            }
          case .absent: lostCount.add(1, ordering: .relaxed)
          case .skipped: damagedCount.add(1, ordering: .relaxed)
          case .failed: break
          }
        }
      }
    }
  }
}
