import Crypto
import Glibc

/// Digests of model files, which are long to read: kept for as long as a file is the same.
actor DigestCache {
  private var known: [FileStamp: [UInt8]] = [:]
  private let path: String

  /// Kept in the file `path` from one start to the next.
  init(path: String) {
    self.path = path
    guard let text = try? readFile(path) else { return }
    for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
      let fields = line.split(separator: " ", maxSplits: 5).map(String.init)
      guard fields.count == 6, var stamp = FileStamp(fields[5]) else { continue }
      let numbers = fields[1..<5].compactMap { Int($0) }
      guard numbers.count == 4 else { continue }
      // A file that has changed since has another stamp, and is not found.
      stamp.device = UInt64(numbers[0])
      stamp.inode = UInt64(numbers[1])
      stamp.byteCount = numbers[2]
      stamp.modified = numbers[3]
      var digest: [UInt8] = []
      var hex = Substring(fields[0])
      while hex.count >= 2, let byte = UInt8(hex.prefix(2), radix: 16) {
        digest.append(byte)
        hex = hex.dropFirst(2)
      }
      if digest.count == 32 { known[stamp] = digest }
    }
  }

  /// Of all parts, where the model is split.
  func digest(ofModel path: String) async throws -> [UInt8] {
    let parts = Self.parts(path)
    if parts.count == 1 { return try await digest(parts[0]) }
    var hasher = SHA256()
    for part in parts { hasher.update(data: try await digest(part)) }
    return Array(hasher.finalize())
  }

  private func digest(_ path: String) async throws -> [UInt8] {
    guard let stamp = FileStamp(path) else { throw NotHelped("\(path) cannot be read") }
    if let digest = known[stamp] { return digest }
    let digest = try await Task.detached { try Self.hash(path) }.value
    guard FileStamp(path) == stamp else { throw NotHelped("\(path) is being changed") }
    known[stamp] = digest
    let lines = known.map { stamp, digest in
      let hex = digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      return
        "\(hex) \(stamp.device) \(stamp.inode) \(stamp.byteCount) \(stamp.modified) \(stamp.path)"
    }
    try? writeFile(self.path, Array(lines.joined(separator: "\n").utf8))
    return digest
  }

  private static func hash(_ path: String) throws -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw NotHelped("\(path) cannot be read: \(String(cString: strerror(errno)))")
    }
    defer { close(file) }
    var hasher = SHA256()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 << 20, alignment: 4096)
    defer { buffer.deallocate() }
    while true {
      let count = read(file, buffer.baseAddress, buffer.count)
      guard count >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
      if count == 0 { return Array(hasher.finalize()) }
      hasher.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
  }

  /// `model-00001-of-00003.gguf` stands for three files.
  static func parts(_ path: String) -> [String] {
    let suffix = ".gguf"
    guard path.hasSuffix(suffix) else { return [path] }
    let stem = path.dropLast(suffix.count)
    guard stem.count > 15, let total = Int(stem.suffix(5)), (2...1000).contains(total),
      stem.dropLast(5).hasSuffix("-of-"), Int(stem.dropLast(9).suffix(5)) != nil
    else { return [path] }
    let base = stem.dropLast(14)
    func padded(_ number: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: 5 - text.count) + text
    }
    return (1...total).map { "\(base)\(padded($0))-of-\(padded(total))\(suffix)" }
  }
}
