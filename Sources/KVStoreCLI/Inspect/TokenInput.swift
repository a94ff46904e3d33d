import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// A prompt from a file or stdin: token ids, or digests of a namespace in digest mode.
struct PromptInput {
  /// Token ids, or the digests as words.
  let words: [UInt32]

  /// Reads numbers in any separation (`1 2 3`, `[1, 2, 3]`, one a line), or hexadecimal digests, one a line; `-` is stdin.
  init(path: String, identity: NamespaceIdentity) throws {
    let name = path == "-" ? "stdin" : path
    let data = try readFile(path)
    switch identity.identityMode {
    case .tokens: words = try Self.tokens(data, name)
    case .digest: words = try Self.digests(data, name, byteCount: identity.digestByteCount)
    }
    guard !words.isEmpty else { throw CommandFailure("\(name): there is no token in it") }
  }

  private static func tokens(_ data: [UInt8], _ name: String) throws -> [UInt32] {
    var words: [UInt32] = []
    var number: UInt64?
    for byte in data + [UInt8(ascii: " ")] {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        let value = (number ?? 0) * 10 + UInt64(byte - UInt8(ascii: "0"))
        guard value <= UInt64(UInt32.max) else {
          throw CommandFailure("\(name): a token id is larger than \(UInt32.max)")
        }
        number = value
      case UInt8(ascii: " "), UInt8(ascii: ","), UInt8(ascii: "["), UInt8(ascii: "]"), 9, 10, 13:
        if let value = number { words.append(UInt32(value)) }
        number = nil
      default:
        let character = Character(Unicode.Scalar(byte))
        throw CommandFailure(
          "\(name): \"\(printable(String(character)))\" is no part of a list of token ids (numbers, blanks, commas, brackets)"
        )
      }
    }
    return words
  }

  private static func digests(_ data: [UInt8], _ name: String, byteCount: Int) throws -> [UInt32] {
    var words: [UInt32] = []
    for (index, line) in String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline)
      .enumerated()
    {
      let digits = line.trimmed
      guard digits.utf8.count == byteCount * 2, let bytes = bytes(digits) else {
        throw CommandFailure(
          "\(name), line \(index + 1): not a digest of \(byteCount * 2) hexadecimal digits"
        )
      }
      for start in stride(from: 0, to: byteCount, by: 4) {
        words.append(bytes[start..<start + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) })
      }
    }
    return words
  }

  private static func bytes(_ digits: String) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = Substring(digits)
    while !rest.isEmpty {
      guard let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
      bytes.append(byte)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}

/// The one namespace that a subcommand is about.
struct OneNamespaceOption: ParsableArguments {
  @Option(
    help: "Number of the namespace, as `inspect namespaces` shows it. (default: the only one)"
  )
  var namespace: UInt32?

  /// The chosen namespace, with an identity that can be read.
  func selected(
    in store: Store
  ) throws -> (summary: StoreInspector.NamespaceSummary, identity: NamespaceIdentity) {
    let all = try store.inspector.namespaces()
    let chosen: StoreInspector.NamespaceSummary
    if let namespace {
      guard let found = all.first(where: { $0.id.rawValue == namespace }) else {
        throw CommandFailure("the store has no namespace \(namespace)")
      }
      chosen = found
    } else {
      guard let only = all.first, all.count == 1 else {
        throw CommandFailure(
          all.isEmpty
            ? "the store has no namespaces"
            : "the store has \(all.count) namespaces: say which one with --namespace"
        )
      }
      chosen = only
    }
    guard let identity = chosen.identity else {
      throw CommandFailure("the identity of namespace \(chosen.id.rawValue) is damaged")
    }
    return (chosen, identity)
  }
}
