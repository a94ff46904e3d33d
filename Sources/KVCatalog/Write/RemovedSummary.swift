package import KVCore

/// What a removal took away.
package struct RemovedSummary: Sendable, Equatable {
  package struct Range: Sendable, Equatable {
    package var namespace: NamespaceID
    package var run: RunID
    package var firstPosition: UInt32
    package var blockCount: UInt32

    package init(
      namespace: NamespaceID,
      run: RunID,
      firstPosition: UInt32,
      blockCount: UInt32
    ) {
      self.namespace = namespace
      self.run = run
      self.firstPosition = firstPosition
      self.blockCount = blockCount
    }
  }

  /// A side section that went along with its block.
  package struct Section: Sendable, Equatable {
    package var namespace: NamespaceID
    package var rootKey: BlockKey
    package var blockKey: BlockKey
  }

  package var ranges: [Range] = []
  /// Their ranges and slots are among the others; the counts are those of blocks alone.
  package var sections: [Section] = []
  /// The blocks that had come to their end, and took those below along.
  package var expiredTops: [ExpiredTop] = []
  package var expiredBlockCount = 0
  package var freedSlots: [SlotAddress] = []
  /// Of a subtree: the slot of its first block.
  package var topSlot: SlotAddress?
  package var blockCount = 0
  package var payloadByteCount: UInt64 = 0
  package var storedByteCount: UInt64 = 0
  /// Rows whose checksum failed; their slots are unknown and stay marked as used.
  package var corruptRowCount = 0
  package init() {}
}
