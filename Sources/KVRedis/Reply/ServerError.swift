package import KVRemote

/// An error as a server words it: a code, and a text for people.
package struct ServerError: Error, Equatable, Sendable {
  /// The first word: "MOVED", "OOM", "ERR".
  package let code: String
  /// What follows it.
  ///
  /// May repeat what was sent, and so is not for logs.
  let rest: String

  init(_ line: some Collection<UInt8>) {
    let text = String(decoding: line.prefix(512), as: UTF8.self)
    let parts = text.split(separator: " ", maxSplits: 1)
    code = parts.first.map(String.init) ?? ""
    rest = parts.count > 1 ? String(parts[1]) : ""
  }

  /// What it means to a caller.
  package var remoteError: RemoteError {
    switch code {
    case "OOM": .full
    case "NOAUTH", "WRONGPASS", "NOPERM": .unauthorized
    case "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "MISCONF",
      "NOREPLICAS",
      "NOREPLICA", "UNKILLABLE", "MOVED", "ASK":
      .unavailable
    case "ERR" where rest.hasPrefix("max number of clients"): .unavailable
    case "ERR" where rest.hasPrefix("Protocol error: invalid bulk length"): .tooLarge
    // Before 6.0: AUTH where no password is set, or a wrong one.
    case "ERR" where rest.hasPrefix("invalid password") || rest.hasPrefix("AUTH "),
      "ERR" where rest.hasPrefix("Client sent AUTH"):
      .unauthorized
    default: .refused(words)
    }
  }

  /// The code and its first words, up to where a server may begin to repeat arguments, which may be a password.
  private var words: String {
    let start = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == " " || $0 == "-") }
    let code = self.code.prefix(32).filter { $0.isASCII && ($0.isLetter || $0.isNumber) }
    return String("\(code) \(start)".prefix(80)).split(separator: " ").joined(separator: " ")
  }

  /// Where a cluster says that a slot is: "MOVED 3999 127.0.0.1:6381".
  package struct Redirection: Equatable, Sendable {
    package let slot: KeySlot
    /// Empty: the host that answered.
    package let host: String
    package let port: UInt16
    /// For this one command; the slot has not moved yet.
    package let isOnce: Bool
  }

  /// nil when it is none, or a malformed one.
  package var redirection: Redirection? {
    guard code == "MOVED" || code == "ASK" else { return nil }
    let parts = rest.split(separator: " ")
    guard parts.count >= 2, let number = UInt16(parts[0]), let slot = KeySlot(number: number),
      // An IPv6 address has colons too.
      let colon = parts[1].lastIndex(of: ":"),
      let port = UInt16(parts[1][parts[1].index(after: colon)...]), port > 0
    else { return nil }
    let host = String(parts[1][..<colon])
    guard host.utf8.count <= 255, host != "?" else { return nil }
    return Redirection(slot: slot, host: host, port: port, isOnce: code == "ASK")
  }
}
