import KVAdmin
import KVCore
import KVStore

/// What a store has of prompts whose prefix a later request has lost, and where the rest went.
final class StoreJoin {
  private let store: Store
  private let namespace: NamespaceID
  private let path: String

  init(_ path: String, namespace: UInt32?) throws {
    var configuration = StoreConfiguration(path: path)
    configuration.readOnly = true
    configuration.hostBytes = 0
    var opened: Store?
    try reportingErrors(at: path) { opened = try Store.open(configuration) }
    guard let opened else { throw CommandFailure("\(path): cannot be opened") }
    store = opened
    self.path = path
    let all = try store.inspector.namespaces()
    let chosen =
      namespace == nil
      ? (all.count == 1 ? all.first : nil) : all.first { $0.id.rawValue == namespace }
    guard let one = chosen else {
      throw CommandFailure(
        all.isEmpty
          ? "\(path): the store has no namespaces"
          : "\(path): the store has \(all.count) namespaces, and not this one: choose one with "
            + "--namespace, as `kvstore inspect namespaces` shows them"
      )
    }
    guard one.identity?.identityMode == .tokens else {
      throw CommandFailure("\(path): the namespace knows digests, not tokens")
    }
    self.namespace = one.id
  }

  deinit { do throws(StoreError) { try store.close() } catch { /* only read */  } }

  /// Whether a prompt is stored, or why not: in the words of `kvstore inspect why-miss`.
  func state(of tokens: [UInt32]) throws -> String {
    var text = ""
    try reportingErrors(at: path) {
      let explanation = try store.inspector.explain(namespace, tokens)
      let part = "\(explanation.matchedTokenCount) of \(tokens.count) tokens"
      text =
        switch explanation.cause {
        case .stored, .partialBlock: "stored"
        case .nothingStored: "never stored"
        case .evicted: "evicted (\(part) are left)"
        case .overQuota: "evicted by its quota (\(part) are left)"
        case .expired: "expired (\(part) are left)"
        case .forgotten: "forgotten (\(part) are left)"
        case .damaged: "damaged (\(part) are left)"
        case .otherNamespace: "stored under another identity"
        case .appended, .forked, .edited, .inserted, .deleted, .reordered, .volatileValue,
          .elsewhere:
          explanation.matchedTokenCount == 0 ? "never stored" : "stored for \(part)"
        }
    }
    return text
  }
}
