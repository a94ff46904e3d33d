/// Marks a namespace as that of *side sections*: state that stands at a block boundary of another namespace, its owner.
///
/// The state of recurrent layers, for example: it is no KV of tokens, so no block of the owner can hold it.
public struct SideSection: Sendable, Hashable {
  /// What the engine calls the state, 1 to 64 bytes of UTF-8.
  public var name: String
  /// SHA-256 of the owner's canonical record.
  public var ownerDigest: [UInt8]

  /// Checked when the namespace is opened.
  public init(name: String, ownerDigest: [UInt8]) {
    self.name = name
    self.ownerDigest = ownerDigest
  }

  /// Nil when a stored field is damaged.
  init?(_ field: [UInt8]) {
    guard field.count > 32, let name = String(validating: field[32...], as: UTF8.self) else {
      return nil
    }
    self.init(name: name, ownerDigest: Array(field[..<32]))
  }

  var encoded: [UInt8] { ownerDigest + Array(name.utf8) }

  var isValid: Bool { (1...64).contains(name.utf8.count) && ownerDigest.count == 32 }
}

extension NamespaceIdentity {
  /// The identity of one kind of sections beside this identity's blocks.
  ///
  /// Everything else is the owner's: model, ranks, salt.
  ///
  /// - Parameters:
  ///   - name: what the engine calls the state.
  ///   - byteCountMax: the most bytes that one section has.
  ///   - record: this identity's canonical record.
  /// - Returns: valid if this one is, and the name and the bound are.
  package func ofSections(named name: String, byteCountMax: Int, record: [UInt8]) -> Self {
    var identity = self
    if identityMode == .tokens {
      identity.identityMode = .digest
      identity.digestByteCount = 32
    }
    identity.regionsAreVariable = true
    identity.regionByteCounts = [byteCountMax]
    identity.groups = []
    identity.sideSection = SideSection(name: name, ownerDigest: SHA256.hash(record))
    return identity
  }
}
