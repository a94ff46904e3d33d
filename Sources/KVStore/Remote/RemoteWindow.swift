internal import KVCore
internal import KVFile
internal import KVRemote

/// Some chunks on their way, which a thread of the tier's receives while another one takes those before.
final class RemoteWindow: Sendable {
  /// Memory of one object; written by who receives it, then only read.
  @safe final class Object: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
    /// The piece of a pool that they are the first ones of; nil for memory of their own.
    private let piece: (pool: ChunkMemory, mapping: MappedMemory)?

    init(_ byteCount: Int, from pool: ChunkMemory? = nil) {
      if let pool, byteCount <= pool.byteCount, let mapping = pool.take() {
        unsafe bytes = UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[..<byteCount])
        piece = (pool, mapping)
      } else {
        unsafe bytes = .allocate(byteCount: byteCount, alignment: 64)
        piece = nil
      }
    }

    deinit {
      if let piece { piece.pool.giveBack(piece.mapping) } else { unsafe bytes.deallocate() }
    }
  }

  /// Of a path, as ranges of blocks.
  let chunks: [Range<Int>]
  private let tier: RemoteTier
  private let names: [RemoteName]
  /// The same for `RemoteState.known`.
  private let known: [BlockKey]
  private let memory: ChunkMemory
  private let name: RemoteState.FetchName?
  private let objects = Monitor<[Object?]?>(nil)

  /// Starts to receive.
  ///
  /// - Parameters:
  ///   - tier: whose threads do it.
  ///   - chunks: of a path.
  ///   - names: theirs.
  ///   - known: the same as the tier remembers them.
  ///   - memory: for them.
  ///   - name: the look-up that they are of.
  init(
    _ tier: RemoteTier,
    _ chunks: [Range<Int>],
    names: [RemoteName],
    known: [BlockKey],
    in memory: ChunkMemory,
    of name: RemoteState.FetchName?
  ) {
    self.tier = tier
    self.chunks = chunks
    self.names = names
    self.known = known
    self.memory = memory
    self.name = name
    let refusal = tier.arrivals.submit { [self] in finish(receive()) }
    if refusal != nil { finish(receive()) }
  }

  private func finish(_ received: [Object?]) {
    objects.withLock { $0 = received }
    objects.notifyAll()
  }

  /// Whole objects, in order; nil for those that did not come.
  func wait() -> [Object?] { objects.wait(until: nil) { $0 } ?? [] }

  private func noteMiss(_ cause: RemoteStatistics.Cause) {
    tier.state.withLock { $0.noteMiss(name, cause) }
  }

  private func receive() -> [Object?] {
    var memories = [Object?](repeating: nil, count: names.count)
    var reads = [RemoteRead](repeating: .absent, count: names.count)
    let started = monotonicNanoseconds()
    let failure: RemoteError?
    do throws(RemoteError) {
      try tier.call { (objects) throws(RemoteError) in
        try unsafe objects.get(names, deadline: tier.transferDeadline) {
          index,
          byteCount in
          guard memories.indices.contains(index), (1...memory.byteCount).contains(byteCount) else {
            return nil
          }
          let object = Object(byteCount, from: memory)
          memories[index] = object
          return unsafe object.bytes
        } done: { index, read in
          if reads.indices.contains(index) { reads[index] = read }
        }
      }
      failure = nil
    } catch {
      // Those that came before it did come.
      failure = error
    }
    var isLeading = true
    var byteCount = 0
    var isNoted = failure == nil
    for index in names.indices {
      switch reads[index] {
      case .whole(let count) where unsafe memories[index]?.bytes.count == count: byteCount += count
      case .whole, .skipped:
        memories[index] = nil
        if isLeading {
          noteMiss(.length)
          tier.remove(names[index])
        }
      case .absent:
        memories[index] = nil
        tier.state.withLock { $0.known.remove(known[index]) }
        if isLeading { noteMiss(.absent) }
      case .failed(let error):
        memories[index] = nil
        if isLeading {
          noteMiss(RemoteStatistics.Cause(error))
          if failure == nil { tier.note(error) }
          isNoted = true
        }
      }
      if memories[index] == nil { isLeading = false }
    }
    if byteCount > 0 {
      let elapsed = monotonicNanoseconds() - started
      tier.state.withLock { $0.bandwidth.add(byteCount: byteCount, nanoseconds: elapsed) }
    }
    if let failure, !isNoted { noteMiss(RemoteStatistics.Cause(failure)) }
    return memories
  }
}
