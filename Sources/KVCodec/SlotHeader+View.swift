internal import KVCore

extension SlotHeader {
  /// A copy of what a view shows.
  package init(_ view: SlotHeaderView) {
    self.init()
    headerByteCount = UInt32(truncatingIfNeeded: view.headerByteCount)
    namespaceID = view.namespaceID
    storeUUID = unsafe Array(view.storeUUID)
    generation = view.generation
    rootKey = view.rootKey
    blockKey = view.blockKey
    parentKey = view.parentKey
    depth = UInt32(truncatingIfNeeded: view.depth)
    payloadByteCount = UInt32(truncatingIfNeeded: view.payloadByteCount)
    storedByteCount = UInt32(truncatingIfNeeded: view.storedByteCount)
    expiry = view.expiry
    hasIdleExpiry = view.hasIdleExpiry
    slotByteCount = view.slotByteCount
    created = view.created
    codec = view.codec
    tier = view.tier ?? .disk
    group = view.group
    priority = view.priority
    regions = (0..<view.regionCount).map { view.region($0) }
    words = unsafe Array(view.words)
    extra = unsafe Array(view.extra)
  }
}
