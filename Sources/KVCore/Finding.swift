/// Something in a store that is not as it must be: what `verify` finds.
public struct Finding: Sendable, Equatable {
  /// What kind of rule is broken.
  public enum Kind: String, Sendable, CaseIterable {
    /// A page or a file cannot be read.
    case unreadable
    /// The checksum of a row.
    case checksum
    /// Lengths or numbers that cannot be.
    case malformed
    /// Something that has to be there is not.
    case missing
    /// Something leads to what is not there.
    case dangling
    /// Two places say different things.
    case contradiction
    /// A block's key does not follow from its parent's key and its words.
    case keyChain
    /// What a namespace is said to hold is not what it holds.
    case accounting
    /// A slot that two blocks claim.
    case slotTwice
    /// Slots that are marked as used and belong to nobody: lost room, no danger.
    case slotOfNobody
    /// Size or absence of a slot file.
    case slotFile
    /// A slot's header is not the one that its row promises.
    case slotHeader
    /// The checksum of a region.
    case payload
    /// A namespace without its record beside the slot files.
    case identityRecord
  }

  /// The kind.
  public var kind: Kind
  /// Where: a table and its key, or a file and slot.
  public var place: String
  /// What is wrong there.
  public var text: String

  package init(_ kind: Kind, _ place: String, _ text: String) {
    self.kind = kind
    self.place = place
    self.text = text
  }
}

/// Findings, so many of them at most; the rest is counted.
package struct FindingList: Sendable {
  package private(set) var findings: [Finding] = []
  package private(set) var count = 0
  private let limit: Int

  package init(limit: Int) { self.limit = limit }

  package mutating func add(_ kind: Finding.Kind, _ place: String, _ text: String) {
    count += 1
    if findings.count < limit { findings.append(Finding(kind, place, text)) }
  }
}
