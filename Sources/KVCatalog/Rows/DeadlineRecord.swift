internal import KVCore

/// A block of a run, and until when it and those before it live at least.
///
/// A row of `deadlines`: u64 deadline.
package struct DeadlineRecord: Sendable, Equatable {
  package var position: UInt32
  /// Unix time in nanoseconds; `.max` = never.
  package var deadline: UInt64
}

extension DeadlineRecord {
  init?(position: UInt32, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let deadline = reader.read(UInt64.self) else { return nil }
    self.init(position: position, deadline: deadline)
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 8)
    writer.append(deadline)
    return writer.bytes
  }
}

/// The deadlines of a run's blocks.
package struct RunDeadlines: Sendable {
  /// By position; only the first at or behind a block counts.
  var records: [DeadlineRecord]
  var pins: [DeadlineRecord]

  package func deadline(at position: UInt32) -> UInt64 {
    let own = records.first { $0.position >= position }?.deadline ?? 0
    return pins.reduce(own) { $1.position >= position ? max($0, $1.deadline) : $0 }
  }
}
