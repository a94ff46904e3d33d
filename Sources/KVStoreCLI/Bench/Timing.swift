import FoundationEssentials
import Glibc
import KVCore

/// CPU time of all threads of this process, in nanoseconds.
func processCPUNanoseconds() -> UInt64 {
  var time = timespec()
  guard unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0 else { return 0 }
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Processor time of this thread that `body` takes, in nanoseconds; on an idle machine that is the time that passes.
func threadCPUNanoseconds(_ body: () throws -> Void) rethrows -> UInt64 {
  func now() -> UInt64 {
    var time = timespec()
    guard unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
  let start = now()
  try body()
  return now() - start
}

/// Bytes that this process made the kernel fetch from and send to storage (/proc/self/io); nil where that is not told.
func processStorageBytes() -> (read: Int, written: Int)? {
  guard let text = try? String(contentsOfFile: "/proc/self/io", encoding: .utf8) else { return nil }
  var values: [Substring: Int] = [:]
  for line in text.split(separator: "\n") {
    let parts = line.split(separator: ":")
    guard parts.count == 2 else { continue }
    values[parts[0]] = Int(parts[1].trimmed)
  }
  guard let read = values["read_bytes"], let written = values["write_bytes"] else { return nil }
  return (read, written)
}

/// Nanoseconds that `body` takes.
func nanoseconds(_ body: () throws -> Void) rethrows -> UInt64 {
  let start = monotonicNanoseconds()
  try body()
  return monotonicNanoseconds() - start
}

/// GB/s (10^9 bytes) of bytes moved in a time.
func gigabytesPerSecond(_ byteCount: Int, _ nanoseconds: UInt64) -> Double {
  Double(byteCount) / Double(max(nanoseconds, 1))
}

/// What the runs of one measurement gave.
struct Series {
  /// A value for each run.
  var values: [Double] = []
  /// Times of single calls, in nanoseconds, all runs together.
  var latencies: [UInt64] = []

  var median: Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  /// (largest − smallest) ÷ median.
  var spread: Double {
    guard let smallest = values.min(), let largest = values.max(), median != 0 else { return 0 }
    return (largest - smallest) / median
  }

  /// The latency that `fraction` of the calls did not exceed; nil without calls.
  func percentile(_ fraction: Double, sorted: [UInt64]) -> UInt64? {
    guard !sorted.isEmpty else { return nil }
    let rank = Int((fraction * Double(sorted.count)).rounded(.up)) - 1
    return sorted[min(max(rank, 0), sorted.count - 1)]
  }
}

/// A limit: its name and what the runs gave.
struct Limit {
  var name: String
  var value: Double
}
