/// Number of a namespace in its store; from 1 on.
public struct NamespaceID: Hashable, Comparable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt32
  /// Wraps a number.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// By number.
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Number of a run: blocks of one chain without a fork, stored side by side.
///
/// 0 is the root; never reused.
public struct RunID: Hashable, Comparable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt64
  /// Wraps a number.
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// By number.
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  /// The parent of first blocks.
  public static let root = RunID(rawValue: 0)
}

/// Where a block stands in its namespace: a run and the index in it.
public struct BlockPosition: Hashable, Sendable {
  /// The run.
  public var run: RunID
  /// Index in the run, from 0 on.
  public var position: UInt32

  /// A place in a run.
  public init(run: RunID, position: UInt32) {
    self.run = run
    self.position = position
  }

  /// The parent of first blocks: run 0, position 0xFFFFFFFF.
  public static let root = BlockPosition(run: .root, position: .max)
}

/// Number of a process that has the store open, given anew at each open.
package struct OwnerID: Hashable, Sendable, RawRepresentable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A number that the store never gives twice: tells a rewritten slot from what it held before.
public struct Generation: Hashable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt64
  /// Wraps a number.
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The tiers, fastest first; raw values are those of the file format.
public enum Tier: UInt8, Sendable, CaseIterable {
  /// GPU memory.
  case device = 0
  /// The arena in RAM.
  case host = 1
  /// Slot files with raw payload.
  case disk = 2
  /// Slot files with compressed payload.
  case archive = 3
}

/// A slot file of a durable tier; numbers are given once, whatever the tier.
package struct SlotFileID: Hashable, Sendable {
  package var tier: Tier
  package var file: UInt32
  package init(tier: Tier, file: UInt32) {
    self.tier = tier
    self.file = file
  }
}

/// One slot of a durable tier.
package struct SlotAddress: Hashable, Sendable {
  package var tier: Tier
  package var file: UInt32
  package var slot: UInt32
  package init(tier: Tier, file: UInt32, slot: UInt32) {
    self.tier = tier
    self.file = file
    self.slot = slot
  }

  package var fileID: SlotFileID { SlotFileID(tier: tier, file: file) }
}

/// Where the payload of a block lies on a durable tier: the 32 bytes of docs/file-format.md, "Place".
package struct BlockPlace: Hashable, Sendable {
  package static let byteCount = 32

  package var tier: Tier
  package var codec: UInt8
  package var group: UInt8
  /// The payload is in the catalog's table `payloads`; file and slot are 0.
  package var isInline: Bool
  package var file: UInt32
  package var slot: UInt32
  package var storedByteCount: UInt32
  package var generation: Generation
  package var headerChecksum: UInt64

  package init(
    tier: Tier,
    codec: UInt8 = 0,
    group: UInt8 = 0,
    isInline: Bool,
    file: UInt32,
    slot: UInt32,
    storedByteCount: UInt32,
    generation: Generation,
    headerChecksum: UInt64
  ) {
    self.tier = tier
    self.codec = codec
    self.group = group
    self.isInline = isInline
    self.file = file
    self.slot = slot
    self.storedByteCount = storedByteCount
    self.generation = generation
    self.headerChecksum = headerChecksum
  }
}
