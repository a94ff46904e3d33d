internal import KVCatalog
internal import KVCore
internal import KVIndex

/// Expiry of blocks in the index: an expired block is not found, a use puts an idle expiry off.
///
/// An entry's `expiry` is the block's own end, or of an idle life the latest deadline in its subtree as this process knows
/// it. An expired block leaves the index; the lookup then asks the catalog, where other processes may have put its expiry off.
extension PrefixTree {
  /// Cuts a path at its first expired block; false when there is none.
  mutating func cutExpired(_ segments: [IndexSegment], _ time: StoreTime) -> Bool {
    let now = time.now()
    for segment in segments {
      let first = index.withEntries(of: segment) { entries -> Int? in
        for offset in 0..<entries.count where time.isOver(entries[offset], at: now) {
          return offset
        }
        return nil
      }
      if let offset = first ?? nil {
        remove(at: segment.location(at: offset))
        return true
      }
    }
    return false
  }

  /// Whether the index knows the block as one that has not expired.
  func isAlive(_ top: ExpiredTop, _ time: StoreTime) -> Bool {
    guard let location = index.locate(top.namespace, top.at), let entry = index.entry(at: location)
    else { return false }
    return entry.expiry != 0 && !time.isOver(entry, at: time.now())
  }

  /// A path was used: its idle TTLs begin anew, and last `keepNanoseconds` at least.
  ///
  /// - Returns: where the deadline of the blocks up to there is set by their own TTL: one place, unless TTLs differ.
  func extendIdle(
    _ segments: [IndexSegment],
    from now: UInt64,
    keepNanoseconds: UInt64
  ) -> [(target: LeaseTable.Target, deadline: UInt64)] {
    var latest: UInt64 = 0
    var places: [(location: IndexLocation, deadline: UInt64)] = []
    for segment in segments.reversed() {
      index.withEntries(of: segment) { entries in
        for offset in (0..<entries.count).reversed()
        where entries[offset].flags.contains(.idleExpiry) {
          let deadline = now.advanced(by: max(entries[offset].idleNanoseconds, keepNanoseconds))
          if deadline > latest {
            latest = deadline
            places.append((segment.location(at: offset), deadline))
          }
          entries[offset].expiry = max(entries[offset].expiry, latest)
        }
      }
    }
    return places.compactMap { place in
      target(at: place.location).map { ($0, place.deadline) }
    }
  }

  /// New blocks lie at the end of a path: what comes before them is kept as long.
  func raiseIdle(downTo location: IndexLocation, until deadline: UInt64) {
    var segments: [IndexSegment] = []
    index.path(to: location, into: &segments)
    for segment in segments {
      index.withEntries(of: segment) { entries in
        for offset in 0..<entries.count where entries[offset].flags.contains(.idleExpiry) {
          entries[offset].expiry = max(entries[offset].expiry, deadline)
        }
      }
    }
  }

  /// Stored blocks were offered again: their expiry and priority become those they were offered with, where these are more.
  ///
  /// - Returns: the blocks whose rows change.
  func renew(
    _ prefix: StoredPrefix,
    _ blocks: Range<Int>,
    _ offered: OfferedExpiry
  ) -> [LeaseTable.Target] {
    var renewed: [IndexLocation] = []
    var block = prefix.firstBlock
    for segment in prefix.segments {
      index.withEntries(of: segment) { entries in
        for offset in 0..<entries.count where blocks.contains(block + offset) {
          let old = entries[offset].blockExpiry
          let blockExpiry = old.joined(offered.blockExpiry)
          entries[offset].blockExpiry = blockExpiry
          // What only moves a deadline is a use, and has been noted as one; but for an end that was offered to an idle life.
          if !blockExpiry.hasSameRow(as: old)
            || blockExpiry.isMoved(from: old, by: offered.blockExpiry)
            || offered.hasPriority
          {
            renewed.append(segment.location(at: offset))
          }
        }
      }
      block += Int(segment.blockCount)
    }
    if let last = renewed.last { raiseIdle(downTo: last, until: offered.blockExpiry.deadline) }
    return renewed.compactMap { target(at: $0) }
  }

  /// Of the blocks of a run down to `end`, the idle ones have these deadlines now.
  func setIdleDeadlines(
    _ namespace: NamespaceID,
    downTo end: BlockPosition,
    _ deadline: (UInt32) -> UInt64
  ) {
    for position in 0...end.position {
      let at = BlockPosition(run: end.run, position: position)
      guard let location = index.locate(namespace, at) else { continue }
      index.updateEntry(at: location) { entry in
        if entry.flags.contains(.idleExpiry) { entry.expiry = deadline(position) }
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
