/// Sizes and marks of a chunk (docs/remote-format.md).
package enum ChunkFormat {
  package static let magic: [UInt8] = Array("KVSCHK".utf8) + [1, 10]
  package static let version: UInt32 = 1
  /// Before the blocks' entries.
  package static let fixedByteCount = 160
  package static let checksumByteCount = 8
  package static let codeByteCount = 32
  /// Of a block's entry before its regions.
  static let entryByteCount = 40
  static let regionByteCount = 16
  /// A flag: the object ends with an authentication code.
  static let hasCode: UInt32 = 1
  /// How a block's payload is stored.
  static let rawCodec: UInt32 = 0
  static let framesCodec: UInt32 = 1

  // What no chunk has more of, whatever it says.
  static let blockCountMax = 64
  static let regionCountMax = 4096
  static let wordsPerBlockMax = 65_536
  static let extraByteCountMax = 16_384
  static let blockPayloadByteCountMax = 1 << 30

  /// A block's entry without its extra bytes.
  static func blockByteCount(regionCount: Int, wordsPerBlock: Int) -> Int {
    entryByteCount + regionByteCount * regionCount + 4 * wordsPerBlock
  }
}

/// Why an object is not the chunk that was asked for.
package enum ChunkFlaw: Error, Sendable, Equatable, CaseIterable {
  /// Not a chunk, or of another version.
  case format
  /// Cut, or longer than it says.
  case length
  /// A checksum or a number is not right.
  case damaged
  /// Its authentication code is not right, or is not there, or there is no key for it.
  case code
  /// Of another namespace, or another place in it.
  case identity
  /// Of other tokens, whose keys are the same.
  case tokens
  /// Its life is over.
  case expired
}
