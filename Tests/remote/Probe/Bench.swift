import Glibc
import KVCore
import KVRedis
import KVRemote
import Synchronization

/// Objects of one length put, then read, by four threads; for `raw_loop.c` to be compared with.
final class Bench: Sendable {
  private let objects: RedisObjects
  private let byteCount: Int
  private let count: Int
  private static let threadCount = 4
  private let failureCount = Atomic(0)

  init(_ objects: RedisObjects, byteCount: Int, count: Int) {
    self.objects = objects
    self.byteCount = byteCount
    self.count = count
  }

  func run() throws(RemoteError) -> String {
    // Connections first: connecting is not what is measured.
    each { number in _ = try? self.objects.exist([RemoteName("x")], deadline: self.limit) }
    let names = (0..<count).map { RemoteName("bench:\(byteCount):\($0)") }
    _ = try objects.remove(names, deadline: limit)
    var text = ""
    for phase in ["put", "get"] {
      let (time, cpu) = (monotonicNanoseconds(), Self.cpuNanoseconds())
      each { number in
        let memory = UnsafeMutableRawBufferPointer.allocate(
          byteCount: self.byteCount,
          alignment: 64
        )
        memory.initializeMemory(as: UInt8.self, repeating: 7)
        defer { memory.deallocate() }
        for index in stride(from: number, to: self.count, by: Self.threadCount) {
          do throws(RemoteError) {
            if phase == "put" {
              _ = try self.objects.putIfAbsent(
                names[index],
                pieces: [UnsafeRawBufferPointer(memory)],
                timeToLiveMilliseconds: 600_000,
                deadline: self.limit
              )
            } else {
              try self.objects.get([names[index]], deadline: self.limit) { _, _ in
                memory
              } done: {
                if $1 != .whole(byteCount: self.byteCount) {
                  self.failureCount.add(1, ordering: .relaxed)
                }
              }
            }
          } catch { self.failureCount.add(1, ordering: .relaxed) }
        }
      }
      let gigabytes = Double(byteCount * count) / 1e9
      let seconds = Double(monotonicNanoseconds() - time) / 1e9
      let cpuSeconds = Double(Self.cpuNanoseconds() - cpu) / 1e9
      text += "\(phase)=\(gigabytes / seconds) \(phase)_cpu=\(cpuSeconds / gigabytes) "
    }
    _ = try objects.remove(names, deadline: limit)
    return text + "failures=\(failureCount.load(ordering: .relaxed))"
  }

  private var limit: UInt64 { deadline(after: 60_000_000_000) }

  private func each(_ body: @escaping @Sendable (Int) -> Void) {
    let threads = (0..<Self.threadCount).compactMap { number in ServiceThread.start { body(number) }
    }
    for thread in threads { thread.join() }
  }

  private static func cpuNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
