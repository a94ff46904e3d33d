package import KVCore

/// What the store's time was at a moment of a boot's own clock: from it every process of this boot computes the same time,
/// whatever the clock of the wall says when it opens.
///
/// Row `boot` of `meta`: boot id[16], u64 boot time, u64 store time. Absent in a store that nobody has opened since the row was
/// introduced.
package struct ClockAnchor: Equatable, Sendable {
  package var boot: BootID
  package var bootNanoseconds: UInt64
  package var timeNanoseconds: UInt64

  package init(boot: BootID, bootNanoseconds: UInt64, timeNanoseconds: UInt64) {
    self.boot = boot
    self.bootNanoseconds = bootNanoseconds
    self.timeNanoseconds = timeNanoseconds
  }

  /// The store's time at a moment of a boot; nil if this is another boot, or a moment before the anchor's (a machine that was
  /// restored from a snapshot).
  package func time(boot: BootID?, bootNanoseconds now: UInt64) -> UInt64? {
    guard boot == self.boot, now >= bootNanoseconds else { return nil }
    let (time, overflows) = timeNanoseconds.addingReportingOverflow(now - bootNanoseconds)
    return overflows ? nil : time
  }
}

extension ReadTransaction {
  /// The anchor that was written last.
  package func clockAnchor() throws(CatalogError) -> ClockAnchor? {
    guard let value = unsafe try getChecked(.meta, .meta(.boot)) else { return nil }
    var reader = unsafe ByteReader(value)
    guard let high = reader.read(UInt64.self)?.byteSwapped,
      let low = reader.read(UInt64.self)?.byteSwapped,
      let bootNanoseconds = reader.read(UInt64.self), let time = reader.read(UInt64.self)
    else { throw .corrupt(.meta) }
    return ClockAnchor(
      boot: BootID(key: BlockKey(high: high, low: low)),
      bootNanoseconds: bootNanoseconds,
      timeNanoseconds: time
    )
  }
}

extension WriteTransaction {
  /// Writes an anchor down, unless another process of its boot was faster.
  package func anchorClock(_ anchor: ClockAnchor) throws(CatalogError) {
    let known = try clockAnchor()
    guard known?.time(boot: anchor.boot, bootNanoseconds: anchor.bootNanoseconds) == nil else {
      return
    }
    var writer = ByteWriter(capacity: 32)
    writer.append(anchor.boot.key)
    writer.append(anchor.bootNanoseconds)
    writer.append(anchor.timeNanoseconds)
    try put(.meta, .meta(.boot), writer.bytes)
  }
}
