internal import KVCatalog
internal import KVCore
internal import KVTiers

/// One block of a restore, with where its bytes come from.
struct PlannedBlock {
  enum Source {
    /// A pinned copy in the arena.
    case host(HostSlot)
    /// A slot of the disk tier or the archive; read into a pinned arena slot when there is room, so that it is promoted.
    case disk(BlockPlace, promoteTo: HostSlot?)
    /// A row of the catalog's table `payloads`.
    case inline(BlockPlace)
    /// Stored, and no region of it is needed.
    case none
  }

  let block: Int
  let blockKey: BlockKey
  let position: BlockPosition?
  let source: Source
}
