internal import KVCore

// Extra bytes lie in a dictionary beside the tree, since hardly any block has some.

extension PrefixIndex {
  /// Bytes that an entry of the dictionary takes besides the extra bytes: key, array header, slack.
  private static let overheadByteCount = 80

  func setExtraBytes(_ bytes: [UInt8], at location: IndexLocation) {
    if bytes.isEmpty { return }
    nodes[location.node].hasExtra = true
    extraBytes[location] = bytes
    extraByteCount += bytes.count + Self.overheadByteCount
  }

  /// Drops the extra bytes of a node's blocks from `local` on.
  func dropExtraBytes(of id: NodeID, from local: UInt32) {
    guard nodes[id].hasExtra else { return }
    for index in local..<nodes[id].count {
      if let bytes = extraBytes.removeValue(forKey: IndexLocation(node: id, local: index)) {
        extraByteCount -= bytes.count + Self.overheadByteCount
      }
    }
  }

  /// Moves the extra bytes of `count` blocks from `local` on to the head of another node.
  func moveExtraBytes(of id: NodeID, from local: UInt32, count: UInt32, to other: NodeID) {
    guard nodes[id].hasExtra else { return }
    for index in 0..<count {
      let old = IndexLocation(node: id, local: local + index)
      guard let bytes = extraBytes.removeValue(forKey: old) else { continue }
      extraBytes[IndexLocation(node: other, local: index)] = bytes
      nodes[other].hasExtra = true
    }
  }

  /// What `extraByteCount` has to be.
  var countedExtraByteCount: Int {
    extraBytes.values.reduce(0) { $0 + $1.count + Self.overheadByteCount }
  }
}

/// The extra bytes of a prompt's block, by its index in the prompt; empty for most.
package typealias ExtraBytesAccessor = (_ blockIndex: Int) -> UnsafeRawBufferPointer
