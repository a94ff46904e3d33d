import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// A block's key: 32 hexadecimal digits, or as many of the first ones as no other key begins with.
struct KeyArgument: ParsableArguments {
  @ArgumentParser.Argument(
    help: "The block's key, or as many of its first hexadecimal digits as no other key begins with."
  )
  var key: String

  private static let shownKeyCountMax = 8

  /// Without the sign that `inspect tree` shortens keys with.
  private var digits: String { (key.hasSuffix("…") ? String(key.dropLast()) : key).lowercased() }

  func validate() throws {
    guard digits.utf8.count >= 4, digits.utf8.count <= 32, digits.allSatisfy(\.isHexDigit) else {
      throw ValidationError("KEY must be 4 to 32 hexadecimal digits.")
    }
  }

  /// The one key in these namespaces that begins so.
  func found(
    in namespaces: [StoreInspector.NamespaceSummary],
    of store: Store
  ) throws -> BlockKey {
    var keys: Set<String> = []
    for namespace in namespaces {
      let found = try store.inspector.blockKeys(
        namespace.id,
        beginningWith: digits,
        limit: Self.shownKeyCountMax + 1
      )
      keys.formUnion((found ?? []).map(\.hexadecimal))
    }
    guard keys.count <= 1 else {
      let shown = keys.sorted().prefix(Self.shownKeyCountMax).joined(separator: "\n  ")
      let more = keys.count > Self.shownKeyCountMax ? "\n  ..." : ""
      throw CommandFailure("several keys begin with \(key):\n  \(shown)\(more)")
    }
    guard let only = keys.first, let blockKey = BlockKey(hexadecimal: only) else {
      throw CommandFailure("no block's key begins with \(key)")
    }
    return blockKey
  }
}
