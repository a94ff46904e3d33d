/// Path ends by what they are worth, the least first; those of recent uses come after all others, the oldest first.
///
/// What a path end is worth changes with its age: all are looked at again from time to time (`refresh`), and the first one always. The
/// entry of one that has another stamp by now, or is none any more, is left out when its turn comes. Neither heap knows what lies at
/// an end: its owner is asked.
///
/// Public, as `MinHeap`.
public struct EndRanking<End> {
  /// A path end with the stamp by which it was ranked.
  public struct Entry: Comparable {
    /// Of a recent use: it stays as long as there are others.
    public let isRecent: Bool
    /// When it was looked at last; 0 where it is recent.
    public let worth: Double
    /// What gave it the stamp was a use.
    public let stamp: UInt64
    /// The path end.
    public let end: End

    @inlinable init(isRecent: Bool, worth: Double, stamp: UInt64, end: End) {
      self.isRecent = isRecent
      self.worth = worth
      self.stamp = stamp
      self.end = end
    }

    /// Whether it goes first.
    @inlinable public static func < (a: Self, b: Self) -> Bool {
      if a.isRecent != b.isRecent { return b.isRecent }
      return a.worth != b.worth ? a.worth < b.worth : a.stamp < b.stamp
    }

    /// Whether neither goes first.
    @inlinable public static func == (a: Self, b: Self) -> Bool {
      a.isRecent == b.isRecent && a.worth == b.worth && a.stamp == b.stamp
    }
  }

  /// Path ends that are looked at again for each use, in the mean: so many uses pass between two refreshes of all.
  @inlinable public static var refreshedPerUse: Int { 256 }

  @usableFromInline var heap = MinHeap<Entry>()
  /// Of recent uses, as far as their turn had come.
  @usableFromInline var recent = MinHeap<Entry>()

  /// Ranks nothing.
  @inlinable public init() {}

  /// Entries that are not recent, in no order; stale ones among them.
  @inlinable public var entries: [Entry] { heap.elements }

  /// Ranks a path end by a stamp that it got.
  @inlinable public mutating func insert(_ end: End, stamp: UInt64, worth: Double) {
    heap.insert(Entry(isRecent: false, worth: worth, stamp: stamp, end: end))
  }

  /// Ranks these path ends anew, and no others.
  @inlinable public mutating func refresh(
    _ ends: some Sequence<(end: End, stamp: UInt64)>,
    worth: (End, UInt64) -> Double
  ) {
    self = EndRanking()
    for (end, stamp) in ends { insert(end, stamp: stamp, worth: worth(end, stamp)) }
  }

  /// Takes out what `first` has just returned.
  @inlinable public mutating func removeFirst(_ first: Entry) {
    if first.isRecent { _ = recent.removeFirst() } else { _ = heap.removeFirst() }
  }

  /// The path end that goes first; it stays in the ranking until it is taken out, or not listed any more.
  ///
  /// - Parameters:
  ///   - isRecent: Whether the use that gave a stamp is recent.
  ///   - isListed: Whether a path end has this stamp still, and may be removed by it.
  ///   - isHeld: Whether a path end is passed over, and keeps its place.
  ///   - worth: What a path end is worth by now.
  /// - Returns: nil where there is none but those that are passed over.
  @inlinable public mutating func first(
    isRecent: (UInt64) -> Bool,
    isListed: (End, UInt64) -> Bool,
    isHeld: (End) -> Bool = { _ in false },
    worth: (End, UInt64) -> Double
  ) -> Entry? {
    while let entry = recent.first, !isRecent(entry.stamp) {
      _ = recent.removeFirst()
      insert(entry.end, stamp: entry.stamp, worth: worth(entry.end, entry.stamp))
    }
    var passed: [Entry] = []
    defer {
      for entry in passed { if entry.isRecent { recent.insert(entry) } else { heap.insert(entry) } }
    }
    while let entry = heap.first {
      if isListed(entry.end, entry.stamp) {
        let now = worth(entry.end, entry.stamp)
        if isHeld(entry.end) {
          passed.append(entry)
        } else if isRecent(entry.stamp) {
          recent.insert(Entry(isRecent: true, worth: 0, stamp: entry.stamp, end: entry.end))
        } else if now <= entry.worth {
          return entry
        } else {
          // The first stays where it is meanwhile: what is inserted comes after it.
          insert(entry.end, stamp: entry.stamp, worth: now)
        }
      }
      _ = heap.removeFirst()
    }
    while let entry = recent.first {
      if isListed(entry.end, entry.stamp) {
        guard isHeld(entry.end) else { return entry }
        passed.append(entry)
      }
      _ = recent.removeFirst()
    }
    return nil
  }
}
