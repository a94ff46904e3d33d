internal import KVCatalog
public import KVCore

extension Store {
  /// `Namespace.pin` by the number of the namespace, for who does not know its salt.
  ///
  /// - Parameters:
  ///   - words: the prompt's token ids, or its digests as words.
  ///   - namespace: number of the namespace.
  ///   - nanoseconds: at most `Namespace.pinNanosecondsMax`.
  /// - Returns: what `unpin` takes, and the length of the prefix in blocks; nil when nothing is stored.
  /// - Throws: `StoreError`; `.full` when there are too many pins.
  public func pin(
    _ words: [UInt32],
    in namespace: NamespaceID,
    nanoseconds: UInt64
  ) throws(StoreError) -> (id: UInt64, blockCount: Int)? {
    try enter()
    defer { leave() }
    guard !core.configuration.readOnly else { throw .readOnly }
    guard nanoseconds > 0, nanoseconds <= Namespace.pinNanosecondsMax else {
      throw .invalidArgument(.pinDuration)
    }
    return try core.pin(words, in: namespace, nanoseconds: nanoseconds)
  }
}

extension StoreCore {
  fileprivate func pin(
    _ words: [UInt32],
    in namespace: NamespaceID,
    nanoseconds: UInt64
  ) throws(StoreError) -> (id: UInt64, blockCount: Int)? {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    let pinned = Monitor((id: UInt64(0), blockCount: 0))
    _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      let found = try Prompt.with(words) { (prompt) throws(StoreError) in
        try catalogWriter.commit { (transaction) throws(CatalogError) -> (UInt64, Int)? in
          guard let row = try transaction.namespace(namespace),
            let target = ExplainTarget(row, keyBitCount: configuration.keyBitCount)
          else { return nil }
          // Under the write lock: what is found stays until it is pinned.
          let walk = try transaction.walk(target, prompt, time)
          guard walk.matchedBlockCount > 0 else { return (0, 0) }
          try transaction.touch(namespace, pathEnd: walk.position)
          let id = try addPin(transaction, namespace, walk.position, nanoseconds)
          return (id ?? 0, walk.matchedBlockCount)
        }
      }
      guard let found else { throw .invalidArgument(.namespace) }
      pinned.withLock { $0 = found }
      return 0
    }
    let result = pinned.withLock { $0 }
    return result.id == 0 ? nil : result
  }
}
