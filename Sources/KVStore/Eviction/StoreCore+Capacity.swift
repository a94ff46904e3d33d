internal import KVCore
internal import KVTiers

extension StoreCore {
  /// What the slot files of a tier may take in all; nil = whatever they do.
  ///
  /// Where several processes have the store open, the largest of their capacities counts: no process takes from another
  /// what that may still use. So the one with the smaller one waits until it is alone.
  func slotByteBound(of tier: Tier) -> Int? {
    guard configuration.holdsToCapacity else { return nil }
    let own = tier == .disk ? slotBounds.disk : slotBounds.archive
    // An archive that this process was not given is not its to make smaller.
    guard tier == .disk || own > 0 && archive.isOwn else { return nil }
    let others = livingProcesses().filter { $0.key != owner }.values
    // The catalog's map and the small files are the same for all.
    let least = configuration.capacityBytes - slotBounds.disk
    let largest =
      tier == .disk
      ? others.map { Int(clamping: $0.diskBytesCapacity) - least }.max()
      : others.map { Int(clamping: $0.archiveBytesCapacity) }.max()
    return max(own, largest ?? 0)
  }
}

extension Writer {
  /// Lets the thread bring a store that is larger than its capacity back into it, a piece at a time with other work in between.
  func enqueueShrinking() {
    enqueueUnhurried(
      // Unowned: it runs on this writer's thread, which `stop` joins before the writer goes.
      WriterCall { [unowned self] () throws(StoreError) in
        if try batches.shrinkStep() { enqueueShrinking() }
        return 0
      }
    )
  }
}
