internal import KVCatalog
package import KVCore
internal import KVIndex

/// Expiry of blocks in the index: an expired block is not found, a use puts an idle expiry off.
///
/// An entry's `expiry` is the block's own end, or of an idle life the latest deadline in its subtree as this process knows
/// it. An expired block leaves the index; the lookup then asks the catalog, where other processes may have put its expiry off.
extension StoreCore {
  func isOver(_ entry: IndexEntry, at now: UInt64) -> Bool {
    entry.expiry != 0
      && time.isOver(
        deadline: entry.expiry,
        isIdle: entry.flags.contains(.idleExpiry),
        at: now
      )
  }

  /// What blocks get that are written now; nil = the namespace's default.
  func offeredExpiry(
    _ timeToLive: TimeToLive?,
    priority: UInt8?,
    _ namespace: NamespaceCore
  ) -> OfferedExpiry {
    let timeToLive = timeToLive ?? namespace.expiry.timeToLive
    if timeToLive != .unlimited { namespace.expiry.mayExpire.exchange(true) }
    return OfferedExpiry(
      blockExpiry: BlockExpiry(timeToLive, from: time.now()),
      priority: priority ?? NewBlock.priorityDefault,
      hasPriority: priority != nil
    )
  }

  /// Cuts a matched path at its first expired block; false when there is none.
  func cutExpired(_ segments: [IndexSegment], _ state: inout StoreState) -> Bool {
    let now = time.now()
    for segment in segments {
      let first = state.index.withEntries(of: segment) { entries -> Int? in
        for index in 0..<entries.count where isOver(entries[index], at: now) { return index }
        return nil
      }
      if let index = first ?? nil {
        state.removeFromIndex(at: segment.location(at: index))
        return true
      }
    }
    return false
  }

  /// A path was used: its idle TTLs begin anew, here at once and in the catalog with the next commit.
  ///
  /// They last `keepNanoseconds` at least.
  func extendExpiry(
    _ namespace: NamespaceCore,
    _ segments: [IndexSegment],
    _ state: inout StoreState,
    keepNanoseconds: UInt64 = 0
  ) {
    guard namespace.expiry.mayExpire.value, !configuration.readOnly else { return }
    let now = time.now()
    var latest: UInt64 = 0
    // Where the deadline of the blocks up to there is set by their own TTL: one place, unless TTLs differ.
    var places: [(location: IndexLocation, deadline: UInt64)] = []
    for segment in segments.reversed() {
      state.index.withEntries(of: segment) { entries in
        for index in (0..<entries.count).reversed()
        where entries[index].flags.contains(.idleExpiry) {
          let deadline = now.advanced(by: max(entries[index].idleNanoseconds, keepNanoseconds))
          if deadline > latest {
            latest = deadline
            places.append((segment.location(at: index), deadline))
          }
          entries[index].expiry = max(entries[index].expiry, latest)
        }
      }
    }
    for place in places {
      guard let target = state.target(at: place.location) else { continue }
      writer?.enqueueExtension(namespace, target, until: place.deadline)
    }
  }

  /// New blocks lie at the end of a path: what comes before them is kept as long.
  func raiseAncestors(
    of location: IndexLocation,
    _ namespace: NamespaceCore,
    until deadline: UInt64,
    _ state: inout StoreState
  ) {
    guard namespace.expiry.mayExpire.value else { return }
    var segments: [IndexSegment] = []
    state.index.path(to: location, into: &segments)
    for segment in segments {
      state.index.withEntries(of: segment) { entries in
        for index in 0..<entries.count where entries[index].flags.contains(.idleExpiry) {
          entries[index].expiry = max(entries[index].expiry, deadline)
        }
      }
    }
  }

  /// Stored blocks were offered again: their expiry and priority become those they were offered with, where these are more.
  func renewExpiry(
    _ namespace: NamespaceCore,
    _ prefix: StoredPrefix,
    _ blocks: Range<Int>,
    _ offered: OfferedExpiry,
    _ state: inout StoreState
  ) {
    guard namespace.expiry.mayExpire.value || offered.hasPriority, !blocks.isEmpty else { return }
    var renewed: [IndexLocation] = []
    var block = prefix.firstBlock
    for segment in prefix.segments {
      state.index.withEntries(of: segment) { entries in
        for index in 0..<entries.count where blocks.contains(block + index) {
          let old = entries[index].blockExpiry
          let blockExpiry = old.joined(offered.blockExpiry)
          entries[index].blockExpiry = blockExpiry
          // What only moves a deadline is a use, and has been noted as one; but for an end that was offered to an idle life.
          if !blockExpiry.hasSameRow(as: old)
            || blockExpiry.isMoved(from: old, by: offered.blockExpiry)
            || offered.hasPriority
          {
            renewed.append(segment.location(at: index))
          }
        }
      }
      block += Int(segment.blockCount)
    }
    for location in renewed {
      guard let target = state.target(at: location) else { continue }
      writer?.enqueueRenewal(namespace, target, offered)
    }
    if !renewed.isEmpty, let last = renewed.last {
      raiseAncestors(of: last, namespace, until: offered.blockExpiry.deadline, &state)
    }
  }

  /// Removes expired blocks, and pins that have ended; returns the number of blocks.
  package func reclaimExpired() throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    return try writer.perform(deadline: writerDeadline) { () throws(StoreError) in
      try writer.batches.removeExpired()
    }
  }
}

extension StoreState {
  /// Whether the index knows the block as one that has not expired.
  func isAlive(_ top: ExpiredTop, _ time: StoreTime) -> Bool {
    guard let location = index.locate(top.namespace, top.at), let entry = index.entry(at: location)
    else { return false }
    return entry.expiry != 0
      && !time.isOver(
        deadline: entry.expiry,
        isIdle: entry.flags.contains(.idleExpiry),
        at: time.now()
      )
  }
}

/// What an offload gives its blocks.
struct OfferedExpiry: Sendable {
  var blockExpiry = BlockExpiry.unlimited
  var priority = NewBlock.priorityDefault
  /// It was asked for, so that stored blocks get it too.
  var hasPriority = false
}

extension IndexEntry {
  /// The life that the entry says.
  var blockExpiry: BlockExpiry {
    get {
      if flags.contains(.idleExpiry) {
        return .idle(nanoseconds: idleNanoseconds, deadline: expiry)
      }
      return expiry == 0 ? .unlimited : .absolute(expiry)
    }
    set {
      flags.remove(.idleExpiry)
      idleNanoseconds = 0
      switch newValue {
      case .unlimited: expiry = 0
      case .absolute(let deadline): expiry = deadline
      case .idle(let nanoseconds, let deadline):
        flags.insert(.idleExpiry)
        idleNanoseconds = nanoseconds
        expiry = deadline
      }
    }
  }
}

extension BlockExpiry {
  /// Whether the block's row says the same of both.
  fileprivate func hasSameRow(as other: BlockExpiry) -> Bool {
    if case .idle(let a, _) = self, case .idle(let b, _) = other { return a == b }
    return self == other
  }

  /// Whether an offered end is later than all that the uses of an idle life come to.
  fileprivate func isMoved(from old: BlockExpiry, by offered: BlockExpiry) -> Bool {
    guard case .idle(_, let deadline) = self, case .idle(_, let before) = old,
      case .absolute = offered
    else { return false }
    return deadline > before
  }
}
