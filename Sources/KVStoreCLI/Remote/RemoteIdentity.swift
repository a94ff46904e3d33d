import ArgumentParser
import KVRedis
import KVRemote

/// Names of the remote tier's objects: `kv1:IDENTITY:KEY`, and `kv1:IDENTITY:id` for the record of an identity.
enum RemoteIdentity {
  static let allPrefix = RemoteName("kv1:")

  static func prefix(of identity: String) -> RemoteName { RemoteName("kv1:\(identity):") }

  static func parts(of name: RemoteName) -> (identity: String, isRecord: Bool)? {
    let parts = name.text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0] == "kv1", isDigits(parts[1], count: 32),
      parts[2] == "id" || isDigits(parts[2], count: 32)
    else { return nil }
    return (String(parts[1]), parts[2] == "id")
  }

  /// Lower-case hexadecimal digits.
  static func isDigits(_ text: some StringProtocol, count: Int) -> Bool {
    text.utf8.count == count
      && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
  }

  /// The digits of an identity that somebody typed.
  static func checkDigits(_ text: String) throws {
    guard (4...32).contains(text.utf8.count), isDigits(text.lowercased(), count: text.utf8.count)
    else {
      throw ValidationError("--identity takes 4 to 32 hexadecimal digits.")
    }
  }

  /// The record beside an identity's objects; nil where there is none.
  static func record(
    of identity: String,
    _ remote: RedisObjects,
    _ options: RemoteOptions
  ) throws -> [UInt8]? {
    // The longest that a record is.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    defer { unsafe memory.deallocate() }
    var record: [UInt8]?
    try unsafe remote.get([RemoteName("kv1:\(identity):id")], deadline: options.deadline) {
      _,
      byteCount in
      unsafe byteCount <= memory.count ? memory : nil
    } done: { _, read in
      if case .whole(let byteCount) = read { record = unsafe Array(memory[..<byteCount]) }
    }
    return record
  }
}
