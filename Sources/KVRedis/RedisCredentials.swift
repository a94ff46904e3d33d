package import KVFile

/// Who this client says it is; never printed.
package struct RedisCredentials: Sendable, CustomStringConvertible, CustomDebugStringConvertible,
  CustomReflectable
{
  /// nil: the server's default user.
  let user: String?
  let password: String

  package init(user: String?, password: String) {
    self.user = user
    self.password = password
  }

  package var description: String { "credentials" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: []) }

  /// Why a file of credentials was not taken.
  package enum FileProblem: Error, Equatable {
    case file(PrivateFileError)
    /// It has no line `password=…`, or a line that is neither that nor `user=…`.
    case malformed
  }

  /// Reads a file, of mode 0600 or 0400, of the lines `user=NAME` (may be absent) and `password=SECRET`.
  package init(file path: String) throws(FileProblem) {
    let text: [UInt8]
    do throws(PrivateFileError) { text = try readPrivateFile(path, byteCountMax: 4096) } catch {
      throw .file(error)
    }
    try self.init(text)
  }

  init(_ text: [UInt8]) throws(FileProblem) {
    var user: String?
    var password: String?
    for line in text.split(separator: UInt8(ascii: "\n")) {
      var line = String(decoding: line, as: UTF8.self)[...]
      if line.last == "\r" { line.removeLast() }
      if line.isEmpty { continue }
      guard let equal = line.firstIndex(of: "=") else { throw .malformed }
      let value = String(line[line.index(after: equal)...])
      switch line[..<equal] {
      case "user" where user == nil: user = value
      case "password" where password == nil: password = value
      default: throw .malformed
      }
    }
    guard let password, !password.isEmpty, user?.isEmpty != true else { throw .malformed }
    self.init(user: user, password: password)
  }
}
