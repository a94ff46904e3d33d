internal import Glibc

// Unsafe: reads two files of /proc into memory of its own.

/// One start of a machine, and one time namespace on it: boot times under one of them can be compared.
public struct BootID: Hashable, Sendable {
  package let key: BlockKey

  package init(key: BlockKey) { self.key = key }

  /// nil where /proc is not mounted.
  static func ofThisMachine() -> BootID? {
    var text = [UInt8](repeating: 0, count: 256)
    let byteCount = unsafe text.withUnsafeMutableBytes { bytes -> Int in
      let descriptor = unsafe open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { return 0 }
      defer { close(descriptor) }
      let idByteCount = unsafe read(descriptor, bytes.baseAddress, 128)
      guard idByteCount > 0 else { return 0 }
      // A kernel without time namespaces has no such link, and needs none.
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[idByteCount...])
      let linkByteCount = unsafe rest.withMemoryRebound(to: CChar.self) {
        unsafe readlink("/proc/self/ns/time", $0.baseAddress.unsafelyUnwrapped, $0.count)
      }
      return idByteCount + max(linkByteCount, 0)
    }
    guard byteCount > 0 else { return nil }
    return unsafe text[..<byteCount].withUnsafeBytes { BootID(key: xxh3Key($0)) }
  }
}
