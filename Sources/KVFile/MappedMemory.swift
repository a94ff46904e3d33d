internal import CLinux
internal import Glibc

/// A mapping of anonymous memory or of a file; unmapped at the end of its life.
///
/// Unsafe: the class only owns the mapping; who writes to which bytes is up to its users. Words that processes share
/// are touched with the atomic methods, which check bounds and alignment (a file may be damaged, our offsets may not).
@safe package final class MappedMemory: @unchecked Sendable {
  package let bytes: UnsafeMutableRawBufferPointer

  private init(_ bytes: UnsafeMutableRawBufferPointer) { unsafe self.bytes = bytes }

  deinit { unsafe munmap(bytes.baseAddress, bytes.count) }

  /// Page-aligned zeroed memory that takes up RAM only where it is touched.
  package static func anonymous(
    byteCount: Int,
    usesHugePages: Bool = false
  ) throws(FileError) -> MappedMemory {
    let memory = try map(
      byteCount: byteCount,
      flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      descriptor: -1
    )
    // Advice only: without huge pages the memory works as well, with more page faults.
    if usesHugePages { _ = unsafe clinux_advise_huge_pages(memory.bytes.baseAddress, byteCount) }
    return memory
  }

  /// The first `byteCount` bytes of a file, shared with all who map it; the file is as long already.
  package static func shared(
    _ descriptor: borrowing FileDescriptor,
    byteCount: Int
  ) throws(FileError) -> MappedMemory {
    guard try descriptor.status(.map).st_size >= byteCount else {
      throw FileError(.map, errno: ENODATA)
    }
    return try map(byteCount: byteCount, flags: MAP_SHARED, descriptor: descriptor.rawValue)
  }

  private static func map(
    byteCount: Int,
    flags: Int32,
    descriptor: Int32
  ) throws(FileError) -> MappedMemory {
    guard byteCount > 0 else { throw FileError(.map, .memory, errno: EINVAL) }
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, descriptor, 0)
    // MAP_FAILED is a cast macro that Swift does not import: all bits set.
    guard let address = unsafe address, UInt(bitPattern: address) != UInt.max else {
      throw FileError(.map, .memory, errno: lastErrno)
    }
    return unsafe MappedMemory(UnsafeMutableRawBufferPointer(start: address, count: byteCount))
  }

  /// Where byte `offset` lies; nil outside the mapping.
  package func pointer(at offset: Int) -> UnsafeMutableRawPointer? {
    guard offset >= 0, unsafe offset < bytes.count else { return nil }
    return unsafe bytes.baseAddress.map { unsafe $0 + offset }
  }

  private static let populatedAtOnceByteCount = 2 << 20

  /// Has the kernel fault these bytes in at once; where it cannot, each page is when it is touched.
  package func populate(_ range: Range<Int>) {
    guard !range.isEmpty, unsafe range.upperBound <= bytes.count,
      let start = unsafe pointer(at: range.lowerBound)
    else { return }
    // In steps: while one runs, no other thread can map memory, nor start a thread of its own.
    var offset = 0
    while offset < range.count {
      let count = min(range.count - offset, Self.populatedAtOnceByteCount)
      guard unsafe clinux_populate(start + offset, count) == 0 else { return }
      offset += count
    }
  }

  private func word(at offset: Int) -> UnsafeMutableRawPointer? {
    unsafe assert(offset % 8 == 0 && offset >= 0 && offset <= bytes.count - 8)
    guard offset % 8 == 0, unsafe offset <= bytes.count - 8 else { return nil }
    return unsafe pointer(at: offset)
  }

  /// The word at byte `offset`, a multiple of 8.
  package func atomicLoad(at offset: Int) -> UInt64 {
    guard let word = unsafe word(at: offset) else { return 0 }
    return unsafe clinux_atomic_load(word)
  }

  /// Stores the word at byte `offset`.
  package func atomicStore(_ value: UInt64, at offset: Int) {
    guard let word = unsafe word(at: offset) else { return }
    unsafe clinux_atomic_store(word, value)
  }

  /// Stores `desired` if the word is `expected`; whether it was.
  package func atomicCompareExchange(
    at offset: Int,
    expected: UInt64,
    desired: UInt64
  ) -> Bool {
    guard let word = unsafe word(at: offset) else { return false }
    return unsafe clinux_atomic_compare_exchange(word, expected, desired) == 1
  }

  /// Adds to the word; returns what it was before.
  @discardableResult
  package func atomicFetchAdd(_ addend: UInt64, at offset: Int) -> UInt64 {
    guard let word = unsafe word(at: offset) else { return 0 }
    return unsafe clinux_atomic_fetch_add(word, addend)
  }
}
