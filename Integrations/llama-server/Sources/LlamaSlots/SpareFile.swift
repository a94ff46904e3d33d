import Glibc

/// A file on tmpfs whose pages are there and mapped before anyone needs it; it gets its name and its size then.
///
/// Safe to share: whoever takes it is the only one that has it.
final class SpareFile: @unchecked Sendable {
  static let byteCountMax = 128 << 20
  /// Addresses that are kept for a file that has to grow.
  private static let mappedByteCount = 1 << 30
  private static let populateWrite: Int32 = 23

  private var file: Int32
  private var address: UnsafeMutableRawPointer?
  private let byteCount: Int

  /// Nil where the file system has no files without a name, or no room.
  init?(in folder: String, byteCount: Int) {
    self.byteCount = byteCount
    let temporary = 0o20_200_000
    file = open(folder, O_RDWR | O_CLOEXEC | Int32(temporary), mode_t(0o600))
    guard file >= 0 else { return nil }
    guard posix_fallocate(file, 0, byteCount) == 0 else { return nil }
    let protection = PROT_READ | PROT_WRITE
    let mapped = mmap(nil, Self.mappedByteCount, protection, MAP_SHARED, file, 0)
    guard let mapped, mapped != MAP_FAILED else { return nil }
    address = mapped
    populate(0..<byteCount)
  }

  deinit {
    if let address { munmap(address, Self.mappedByteCount) }
    if file >= 0 { close(file) }
  }

  /// Gives it a name in the folder, and exactly so many bytes, all of them there.
  func named(_ name: String, in folder: Int32, byteCount: Int) throws(SlotFileError)
    -> MappedFile
  {
    guard byteCount <= Self.mappedByteCount, let address else {
      throw .unusable("larger than a spare file can be")
    }
    if byteCount > self.byteCount {
      let failed = posix_fallocate(file, 0, byteCount)
      guard failed == 0 else {
        throw .file("making room for a slot file of \(byteCount) bytes", errno: failed)
      }
      populate(self.byteCount..<byteCount)
    } else if ftruncate(file, byteCount) != 0 {
      throw .file("cutting a slot file", errno: errno)
    }
    guard linkat(AT_FDCWD, "/proc/self/fd/\(file)", folder, name, AT_SYMLINK_FOLLOW) == 0 else {
      throw .file("naming a slot file", errno: errno)
    }
    self.address = nil
    return MappedFile(address, byteCount: byteCount, mappedByteCount: Self.mappedByteCount)
  }

  /// Enters pages that are there into the page table; where the kernel cannot, each is when it is touched.
  private func populate(_ range: Range<Int>) {
    guard let address else { return }
    let start = range.lowerBound & ~4095
    _ = madvise(address + start, range.upperBound - start, Self.populateWrite)
  }
}
