internal import KVCore

/// What all processes did in a stretch of time.
package struct HistoryInterval: Sendable, Equatable {
  package var spanSeconds: UInt32
  /// Unix time, a multiple of the span.
  package var startSeconds: UInt64
  package var totals: StoreTotals
}

/// How long the stretches are, and how many of each are kept.
package enum History {
  /// Five minutes for a day, an hour for two weeks, a day for two years.
  package static let spans: [(seconds: UInt32, countMax: Int)] = [
    (300, 288), (3_600, 336), (86_400, 730),
  ]

  /// In a small catalog fewer: all rows together take a 64th of the map; one takes up to 250 bytes.
  static func countMax(_ span: Int, forMap mapByteCount: Int) -> Int {
    let all = spans.reduce(0) { $0 + $1.countMax }
    let room = max(24, mapByteCount / 64 / 250)
    return min(spans[span].countMax, max(8, spans[span].countMax * min(room, all) / all))
  }
}

extension ReadTransaction {
  /// What was done, by time, oldest first: of each span the stretches in which something was done, the one under way last.
  package func history(spanSeconds: UInt32) throws(CatalogError) -> [HistoryInterval] {
    var intervals: [HistoryInterval] = []
    if has(.history) {
      var cursor = try cursor(.history)
      var isThere = try cursor.seek(.history(spanSeconds: spanSeconds, startSeconds: 0))
      while isThere, let found = unsafe historyKey(cursor.key), found.spanSeconds == spanSeconds {
        let body = unsafe try cursor.checkedBody(.history)
        intervals.append(
          HistoryInterval(
            spanSeconds: spanSeconds,
            startSeconds: found.startSeconds,
            totals: unsafe StoreTotals(body)
          )
        )
        isThere = try cursor.next()
      }
    }
    let recent = try recentIntervals()
    if let last = recent.first(where: { $0.spanSeconds == spanSeconds }) { intervals.append(last) }
    return intervals
  }

  /// The stretches under way, one of each span.
  fileprivate func recentIntervals() throws(CatalogError) -> [HistoryInterval] {
    guard let value = unsafe try getChecked(.meta, .meta(.recent)) else { return [] }
    var intervals: [HistoryInterval] = []
    let byteCount = StoreTotals.encodedByteCount
    var reader = unsafe ByteReader(value)
    while let span = reader.read(UInt32.self), let start = reader.read(UInt64.self),
      let bytes = reader.readBytes(byteCount)
    {
      let totals = unsafe bytes.withUnsafeBytes { unsafe StoreTotals($0) }
      intervals.append(
        HistoryInterval(spanSeconds: span, startSeconds: start, totals: totals)
      )
    }
    return intervals
  }
}

extension WriteTransaction {
  /// Adds what this process did to the stretches under way.
  ///
  /// They lie in one row of `meta`, whose page each commit writes anyway; a stretch that is over becomes a row of its own, once.
  func recordHistory(_ now: StoreTotals, since before: StoreTotals) throws(CatalogError) {
    // For people to look at: a damaged row begins anew.
    let recent = (try? recentIntervals()) ?? []
    var writer = ByteWriter(capacity: History.spans.count * (12 + StoreTotals.encodedByteCount))
    for (index, span) in History.spans.enumerated() {
      var start = timeNanoseconds / 1_000_000_000 / UInt64(span.seconds) * UInt64(span.seconds)
      var totals = StoreTotals()
      if let known = recent.first(where: { $0.spanSeconds == span.seconds }) {
        // The time of commits does not go back but for a commit of another process that began later.
        if known.startSeconds >= start {
          (start, totals) = (known.startSeconds, known.totals)
        } else {
          try keep(known, countMax: History.countMax(index, forMap: mapByteCount))
        }
      }
      totals.add(now, since: before)
      writer.append(span.seconds)
      writer.append(start)
      writer.append(contentsOf: totals.encoded)
    }
    try put(.meta, .meta(.recent), writer.bytes)
  }

  /// A stretch is over; the oldest ones go when there are more than `countMax`.
  private func keep(_ interval: HistoryInterval, countMax: Int) throws(CatalogError) {
    guard has(.history) else { return }
    let (span, start) = (interval.spanSeconds, interval.startSeconds)
    try put(
      .history,
      .history(spanSeconds: span, startSeconds: start),
      interval.totals.encoded
    )
    let oldest = start - min(start, UInt64(span) * UInt64(countMax - 1))
    var obsolete: [UInt64] = []
    do {
      var cursor = try cursor(.history)
      var isThere = try cursor.seek(.history(spanSeconds: span, startSeconds: 0))
      while isThere, let found = unsafe historyKey(cursor.key), found.spanSeconds == span,
        found.startSeconds < oldest
      {
        obsolete.append(found.startSeconds)
        isThere = try cursor.next()
      }
    }
    for start in obsolete { try delete(.history, .history(spanSeconds: span, startSeconds: start)) }
  }
}
