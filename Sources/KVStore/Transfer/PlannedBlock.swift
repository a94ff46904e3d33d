internal import KVCatalog
internal import KVCore
internal import KVTiers

/// One block of a window that is read, with where its bytes come from.
struct PlannedBlock {
  enum Source {
    /// A pinned copy in the arena.
    case host(HostSlot)
    /// A slot of the disk tier or the archive; read into a pinned slot of the arena, so that it is promoted, or
    /// into memory of its own.
    case disk(BlockPlace, into: HostSlot?)
    /// Part of a slot of the disk tier; read into the pinned slot that the call's `LayerCopies` have for the block.
    case piece(BlockPlace, of: HostSlot)
    /// A row of the catalog's table `payloads`; laid out in a pinned slot, or handed over where it lies.
    case inline(BlockPlace, into: HostSlot?)
    /// Stored, and no region of it is needed.
    case nothing
  }

  let block: Int
  let blockKey: BlockKey
  let position: BlockPosition?
  let source: Source

  /// A copy was in the arena already.
  var isInHost: Bool { if case .host = source { true } else { false } }

  /// Of the arena, pinned by the call.
  var slot: HostSlot? {
    switch source {
    case .host(let slot): slot
    case .disk(_, let slot), .inline(_, let slot): slot
    case .piece, .nothing: nil
    }
  }

  /// Where it is read from; nil when it is in the arena.
  var place: BlockPlace? {
    switch source {
    case .disk(let place, _), .piece(let place, _), .inline(let place, _): place
    case .host, .nothing: nil
    }
  }
}
