internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// What the state lock guards (docs/internals/concurrency.md, lock 2): parts that know who is where in RAM.
///
/// No I/O, copy, checksum or catalog call happens while it is held.
struct StoreState {
  var tree: PrefixTree
  let host: HostTier
  let leases: LeaseTable
  var partials: PartialBlocks
  var reservations: SlotReservations
  var namespaces = OpenNamespaces()
  var fullness = Fullness()
  var meters = StoreMeters()
  /// Of the arena, pinned by restores that read layer by layer (`LayerCopies`).
  var layerCopyByteCount = 0
  var spare = SpareArrays()

  /// Empty arrays that calls take and give back, so that a short one allocates none.
  struct SpareArrays {
    var segments: [IndexSegment] = []
    var plan: [PlannedBlock] = []
  }

  init(_ arena: HostArena, _ leases: LeaseTable, _ intents: EvictionIntents) {
    let host = HostTier(arena)
    self.host = host
    self.leases = leases
    tree = PrefixTree(host: host, intents: intents)
    partials = PartialBlocks(host: host)
    reservations = SlotReservations(host: host)
  }

  /// Of blocks whose regions come one call at a time, those that are stored by now.
  mutating func dropPartials(_ namespace: NamespaceID, _ prefix: StoredPrefix, from first: Int) {
    guard !partials.isEmpty else { return }
    tree.forEachBlock(of: prefix) { block, entry in
      if block >= first {
        partials.drop(PartialBlock.Name(namespace: namespace, blockKey: entry.blockKey))
      }
      return true
    }
  }
}
