public import KVCore

extension Namespace {
  /// The longest prefix that every one of the namespaces has, with a lease in each: for the ranks of one model.
  ///
  /// - Parameters:
  ///   - namespaces: of one store handle, with the same identity mode and tokens per block.
  ///   - prompt: from its first token on; a rest that fills no block is allowed.
  ///   - options: as for `match`.
  ///   - leaseNanoseconds: as for `match`.
  /// - Returns: one result for each namespace, all of the same length. When one lacks a lease, none has one.
  /// - Throws: `StoreError`.
  public static func matchAll(
    _ namespaces: [Namespace],
    _ prompt: Prompt,
    options: MatchOptions = [],
    leaseNanoseconds: UInt64 = 0
  ) throws(StoreError) -> [MatchResult] {
    guard let first = namespaces.first else { return [] }
    for namespace in namespaces {
      guard namespace.identity.identityMode == first.identity.identityMode,
        namespace.identity.tokensPerBlock == first.identity.tokensPerBlock,
        namespace.core.wordsPerBlock == first.core.wordsPerBlock
      else { throw .invalidArgument(.namespacesDiffer) }
    }
    // Peeks first, so that no lease is taken on what is longer than the shortest.
    var blockCount = Int.max
    for namespace in namespaces where blockCount > 0 {
      let peek = try namespace.match(
        prompt,
        options: options.union(.peek),
        blockCountMax: blockCount
      )
      blockCount = min(blockCount, peek.blockCount)
    }
    while true {
      var results: [MatchResult] = []
      var shortest = blockCount
      do throws(StoreError) {
        for namespace in namespaces {
          let result = try namespace.match(
            prompt,
            options: options,
            leaseNanoseconds: leaseNanoseconds,
            blockCountMax: blockCount
          )
          results.append(result)
          shortest = min(shortest, result.blockCount)
          if shortest < blockCount || result.leaseRefused { break }
        }
      } catch {
        for (namespace, result) in zip(namespaces, results) { namespace.release(result) }
        throw error
      }
      let isRefused = results.contains { $0.leaseRefused }
      if shortest == blockCount, !isRefused { return results }
      // One lost its blocks since the peek, or no lease was free: all again, or all without.
      for (namespace, result) in zip(namespaces, results) { namespace.release(result) }
      if isRefused, shortest == blockCount {
        return namespaces.map { _ in
          var result = results[0]
          result.lease = 0
          result.leaseRefused = true
          return result
        }
      }
      blockCount = shortest
    }
  }

  func release(_ result: MatchResult) {
    // A lease that was taken just now can be released; the store is open, or the match had failed.
    if result.lease != 0 { _ = try? store.releaseLease(result.lease) }
  }

  func match(
    _ prompt: Prompt,
    options: MatchOptions,
    leaseNanoseconds: UInt64 = 0,
    blockCountMax: Int
  ) throws(StoreError) -> MatchResult {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.match(
      core,
      prompt,
      options: options,
      leaseNanoseconds: leaseNanoseconds,
      blockCountMax: blockCountMax
    )
  }
}
