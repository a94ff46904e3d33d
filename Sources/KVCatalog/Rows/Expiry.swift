import KVCore

/// An entry of `expiries`: what ends when, soonest first.
///
/// All of it is in the key.
struct Expiry: Equatable {
  enum Kind: UInt8, CaseIterable {
    /// A block row says so itself.
    case absolute = 0
    /// A record of `deadlines`.
    case idle = 1
  }

  var kind: Kind
  var deadline: UInt64
  var namespace: NamespaceID
  var at: BlockPosition

  init(_ kind: Kind, _ deadline: UInt64, _ namespace: NamespaceID, _ at: BlockPosition) {
    self.kind = kind
    self.deadline = deadline
    self.namespace = namespace
    self.at = at
  }

  /// The first that may end at this time.
  static func first(_ kind: Kind, _ deadline: UInt64) -> TableKey {
    TableKey.expiry(
      Expiry(
        kind,
        deadline,
        NamespaceID(rawValue: 0),
        BlockPosition(run: .root, position: 0)
      )
    )
  }
}
