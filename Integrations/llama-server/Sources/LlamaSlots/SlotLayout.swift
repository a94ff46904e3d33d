import Glibc

/// What the slot files of one running llama-server look like: everything but tokens, positions and payload.
///
/// A file is
/// ```
/// u32 'ggsq' | u32 version | u32 n | i32 tokens[n] | caches | state
/// cache: u32 streams | for each: u32 cells | cells × (i32 position, u32 1, i32 sequence)
///        | u32 transposed, u32 layers[, u32 rotationK, u32 rotationV] | K of each layer | V of each layer
/// K, V:  i32 type, u64 row bytes | cells × row                       one row for each token
/// V^T:   i32 type, u32 element bytes, u32 rows | rows × cells × element      without flash attention
/// ```
/// and the state is what recurrent layers have: bytes that mean something only at the very end where they were saved.
package struct SlotLayout: Hashable, Sendable {
  /// K or V of one layer.
  package struct Plane: Hashable, Sendable {
    package var type: Int32
    /// Bytes of one token.
    package var rowByteCount: Int
    /// 0: the bytes of a token lie together. Else V is transposed: `rowByteCount / elementByteCount` rows over all tokens.
    package var elementByteCount: Int
  }

  /// All layers of one kind of attention.
  package struct Cache: Hashable, Sendable {
    package var streamCount: Int
    package var isTransposed: Bool
    /// The fields `n_rot_k` and `n_rot_v`, which older files do not have.
    package var rotation: [UInt32]
    /// K of each layer, then V of each layer.
    package var planes: [Plane]

    /// Bytes of one token over all planes.
    package var rowByteCount: Int { planes.reduce(0) { $0 + $1.rowByteCount } }
  }

  package var version: UInt32
  /// Whether the token list is wrapped (`-1, version, n, tokens, media`).
  package var wrapsTokens: Bool
  /// The attention that sees everything first, then the sliding window's.
  package var caches: [Cache]
  /// Bytes of the recurrent state; 0 for models without.
  package var stateByteCount: Int

  /// Cache whose cells belong to tokens for good: what blocks are made of.
  package var blockCache: Cache? { caches.first }
  /// Whether a prefix is usable only at ends that were saved as such.
  package var needsExactEnds: Bool { caches.count > 1 || stateByteCount > 0 }

  /// Canonical bytes, for the identity of a namespace.
  package var encoded: [UInt8] {
    var bytes: [UInt8] = []
    func put(_ value: Int) {
      withUnsafeBytes(of: Int64(value).littleEndian) { bytes.append(contentsOf: $0) }
    }
    put(Int(version))
    put(stateByteCount)
    put(caches.count)
    for cache in caches {
      // How many streams there are is how the server was started, not what a token's bytes are.
      put(cache.isTransposed ? 1 : 0)
      put(cache.rotation.count)
      for field in cache.rotation { put(Int(field)) }
      put(cache.planes.count)
      for plane in cache.planes {
        put(Int(plane.type))
        put(plane.rowByteCount)
        put(plane.elementByteCount)
      }
    }
    return bytes
  }
}

/// Why a file is not understood.
package enum SlotFileError: Error, Equatable, Sendable, CustomStringConvertible {
  case notASlotFile
  case truncated
  case unknownLayout
  /// A sequence that shares cells, positions that are not the tokens', media.
  case unusable(String)
  case file(String, errno: Int32)

  package var description: String {
    switch self {
    case .notASlotFile: "not a slot file"
    case .truncated: "ends too soon"
    case .unknownLayout: "unknown layout"
    case .unusable(let text): text
    case .file(let action, let errno): "\(action): \(String(cString: strerror(errno)))"
    }
  }
}
