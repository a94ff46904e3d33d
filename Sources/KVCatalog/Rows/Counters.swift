internal import KVCore

/// The numbers that only go up; 0 is never given.
///
/// Row `counters` of `meta`: u64 next run, stamp, event, generation, u32 next namespace, owner, slot file, pin.
struct Counters: Equatable {
  var run: UInt64 = 1
  var stamp: UInt64 = 1
  var event: UInt64 = 1
  var generation: UInt64 = 1
  var namespace: UInt32 = 1
  var owner: UInt32 = 1
  var slotFile: UInt32 = 1
  var pin: UInt32 = 1

  /// Far beyond what a store gives in its life.
  static let max: UInt32 = 1 << 31

  init() {}

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let run = reader.read(UInt64.self), let stamp = reader.read(UInt64.self),
      let event = reader.read(UInt64.self), let generation = reader.read(UInt64.self),
      let namespace = reader.read(UInt32.self), let owner = reader.read(UInt32.self),
      let slotFile = reader.read(UInt32.self), let pin = reader.read(UInt32.self)
    else { return nil }
    // No store gets that far in its life: it is damage, and adding to it would trap.
    guard Swift.max(run, stamp, event, generation) < 1 << 62,
      Swift.max(namespace, owner, slotFile, pin) < Self.max
    else { return nil }
    self.run = run
    self.stamp = stamp
    self.event = event
    self.generation = generation
    self.namespace = namespace
    self.owner = owner
    self.slotFile = slotFile
    self.pin = pin
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 48)
    writer.append(run)
    writer.append(stamp)
    writer.append(event)
    writer.append(generation)
    writer.append(namespace)
    writer.append(owner)
    writer.append(slotFile)
    writer.append(pin)
    return writer.bytes
  }
}
