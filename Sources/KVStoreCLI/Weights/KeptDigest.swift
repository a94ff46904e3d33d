import FoundationEssentials
import Glibc
import KVCore

/// The digest of a whole file, kept for as long as the file is not changed.
///
/// The Python package reads these records (`kvstore.weights`).
struct KeptDigest: Codable, Equatable {
  /// With every symbolic link resolved.
  var path: String
  var size: UInt64
  var inode: UInt64
  var modifiedNanoseconds: UInt64
  /// The time of change, which the kernel sets and nobody can set back: `touch -r` and `cp -p` do not reach it.
  var changedNanoseconds: UInt64
  var sha256: String

  /// What a file is now, without its digest.
  init(describing path: String) throws {
    guard let resolved = unsafe realpath(path, nil) else {
      throw CommandFailure("\(path): \(errorText(errno))")
    }
    defer { unsafe free(resolved) }
    let real = unsafe String(cString: resolved)
    var state = stat()
    guard unsafe stat(real, &state) == 0 else {
      throw CommandFailure("\(path): \(errorText(errno))")
    }
    self.path = real
    size = UInt64(clamping: state.st_size)
    inode = UInt64(state.st_ino)
    modifiedNanoseconds = Self.nanoseconds(state.st_mtim)
    changedNanoseconds = Self.nanoseconds(state.st_ctim)
    sha256 = ""
  }

  private static func nanoseconds(_ time: timespec) -> UInt64 {
    UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
  }

  /// Whether the file system notes when a file is changed.
  ///
  /// Where the times are those that an image was made with, or whole
  /// seconds, two contents may have equal ones.
  var canBeKept: Bool { changedNanoseconds % 1_000_000_000 != 0 }

  /// $KVSTORE_CACHE, else $XDG_CACHE_HOME/kvstore, else ~/.cache/kvstore; and in it `weights`.
  static var folder: String {
    cacheFolder() + "/weights"
  }

  private var file: String {
    var hash = SHA256()
    hash.update(path)
    return "\(Self.folder)/\(hexadecimalText(hash.finished())).json"
  }

  /// This state with its digest, if that was kept.
  func kept() -> KeptDigest? {
    guard canBeKept, Self.isOurs(file), let data = FileManager.default.contents(atPath: file),
      let record = try? JSONDecoder().decode(KeptDigest.self, from: data)
    else { return nil }
    var expected = self
    expected.sha256 = record.sha256
    return record == expected ? record : nil
  }

  /// Whether nobody else may write a record: who may could give one model another's name.
  private static func isOurs(_ file: String) -> Bool {
    var state = stat()
    guard unsafe lstat(file, &state) == 0, state.st_mode & S_IFMT == S_IFREG else { return false }
    return [0, geteuid()].contains(state.st_uid) && state.st_mode & (S_IWGRP | S_IWOTH) == 0
  }

  /// Keeps it; another process finds the old record or the new one, whole.
  func keep() throws {
    do {
      try FileManager.default.createDirectory(
        atPath: Self.folder,
        withIntermediateDirectories: true,
        attributes: [.posixPermissions: 0o700]
      )
      // A file that is written over keeps its owner's rights.
      if !Self.isOurs(file) { _ = unsafe unlink(file) }
      try writeFile(file, try foreignJSONText(self))
    } catch {
      throw CommandFailure("cannot keep the digest in \(Self.folder): \(error)")
    }
  }
}

/// Bytes in hexadecimal digits.
func hexadecimalText(_ bytes: [UInt8]) -> String {
  bytes.map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
}
