import Dispatch
import KVCore
import KVFile

/// A preallocated file that is written and read past the page cache in large pieces by several threads: the limit
/// that the store's transfers are held against.
final class RawDisk {
  /// Large enough that per-call costs vanish.
  private static let pieceByteCount = 2 << 20

  private let storage: any Storage
  private let path: String
  private let pieceCount: Int
  private var buffers: [AlignedBuffer] = []

  var byteCount: Int { pieceCount * Self.pieceByteCount }

  init(path: String, byteCount: Int, storage: any Storage) throws {
    self.path = path
    self.storage = storage
    pieceCount = max(1, byteCount / Self.pieceByteCount)
    for thread in 0..<4 {
      let buffer = try AlignedBuffer(byteCount: Self.pieceByteCount)
      let words = unsafe buffer.bytes.bindMemory(to: UInt64.self)
      var state = UInt64(thread) &* 0x9E37_79B9_7F4A_7C15 | 1
      for index in 0..<words.count {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        unsafe words[index] = state
      }
      buffers.append(buffer)
    }
  }

  /// Thread counts to try, up to `threads`.
  static func threadCounts(upTo threads: Int) -> [Int] { [1, 2, 4].filter { $0 <= threads } }

  /// Makes the file anew: preallocated extents that were never written.
  func makeFresh() throws {
    if try storage.fileExists(path) { try storage.remove(path) }
    let file = try storage.openFile(path, mode: .createNew, direct: false)
    try file.allocate(byteCount: UInt64(byteCount))
    try file.sync()
  }

  func remove() throws { try storage.remove(path) }

  /// Nanoseconds to write the whole file, the sync counted.
  func write(threads: Int) throws -> UInt64 {
    let file = try storage.openFile(path, mode: .existing, direct: true)
    return try nanoseconds {
      try onThreads(threads, pieceCount: pieceCount) { [buffers] thread, piece throws(FileError) in
        unsafe try file.write(buffers[thread].readOnly, at: UInt64(piece * Self.pieceByteCount))
      }
      try file.sync()
    }
  }

  /// Nanoseconds to read the whole file, past the page cache if `direct`.
  func read(threads: Int, direct: Bool = true) throws -> UInt64 {
    let file = try storage.openFile(path, mode: .readOnly, direct: direct)
    return try nanoseconds {
      try onThreads(threads, pieceCount: pieceCount) { [buffers] thread, piece throws(FileError) in
        unsafe try file.read(into: buffers[thread].bytes, at: UInt64(piece * Self.pieceByteCount))
      }
    }
  }

  /// Whether the last transfers really went past the page cache.
  func isDirect() throws -> Bool {
    try storage.openFile(path, mode: .existing, direct: true).isDirect
  }
}

/// Runs `body` with the thread's number for every piece, the pieces dealt out to real threads.
func onThreads<Failure: Error>(
  _ threads: Int,
  pieceCount: Int,
  _ body: @escaping @Sendable (_ thread: Int, _ piece: Int) throws(Failure) -> Void
) throws {
  let failure = Monitor<Failure?>(nil)
  let group = DispatchGroup()
  for thread in 0..<threads {
    // Not a dispatch queue: that runs no more threads than there are cores, and these mostly wait.
    group.enter()
    try startThread {
      defer { group.leave() }
      do throws(Failure) {
        for piece in stride(from: thread, to: pieceCount, by: threads) { try body(thread, piece) }
      } catch {
        failure.withLock { $0 = error }
      }
    }
  }
  group.wait()
  if let failure = failure.withLock({ $0 }) { throw failure }
}
