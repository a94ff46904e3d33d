internal import Synchronization

/// What the devices of a store hold and have moved, for its statistics.
final class DeviceMeter: Sendable {
  let slotCapacity = Atomic<Int>(0)
  let slotsUsed = Atomic<Int>(0)
  let slotsCached = Atomic<Int>(0)
  let blocksShared = Atomic<Int>(0)
  let copiesOnWrite = Atomic<Int>(0)
  let bytesIn = Atomic<Int>(0)
  let bytesOut = Atomic<Int>(0)

  func add(_ count: Int, to counter: borrowing Atomic<Int>) {
    counter.add(count, ordering: .relaxed)
  }

  func fill(_ statistics: inout StoreStatistics) {
    func value(_ counter: borrowing Atomic<Int>) -> UInt64 {
      UInt64(clamping: counter.load(ordering: .relaxed))
    }
    statistics.deviceSlotsCapacity = value(slotCapacity)
    statistics.deviceSlotsUsed = value(slotsUsed)
    statistics.deviceSlotsCached = value(slotsCached)
    statistics.deviceBlocksShared = value(blocksShared)
    statistics.deviceCopiesOnWrite = value(copiesOnWrite)
    statistics.deviceBytesIn = value(bytesIn)
    statistics.deviceBytesOut = value(bytesOut)
  }
}
