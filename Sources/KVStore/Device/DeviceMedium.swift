internal import KVCore
internal import KVFile

/// One block to be copied, whole.
@safe public struct DeviceCopy {
  /// The slot of the device.
  public var slot: Int
  /// Where it comes from, of a copy within the device; else the same as `slot`.
  public var fromSlot: Int
  /// The block's bytes in the host tier; nil within the device.
  public var hostMemory: UnsafeMutableRawPointer?
  /// Bytes of a block.
  public var byteCount: Int
}

/// Which way a device copies.
public enum DeviceDirection: UInt32, Sendable {
  /// From the host tier to slots.
  case toDevice = 1
  /// From slots to the host tier.
  case fromDevice = 2
  /// From slot to slot.
  case withinDevice = 3
}

/// What copies to and from the memory of a device: the engine, or the simulated device.
public protocol DeviceMedium: Sendable {
  /// Starts these copies.
  ///
  /// When all of them are over, `completion.finish` is called once, by any thread, also before this returns. Until then the
  /// host memory and the slots stay as they are. No lock of the store is held.
  func copy(_ direction: DeviceDirection, _ copies: [DeviceCopy], _ completion: DeviceCompletion)
}

/// The end of copies that were started together.
///
/// Thread-safe.
public final class DeviceCompletion: Sendable {
  private struct State {
    var succeeded: Bool?
    /// Runs at the end, when nobody waits for it any more.
    var release: (@Sendable () -> Void)?
  }

  private let state = Monitor(State())

  init() {}

  /// Says that the copies are over, and whether all went well; later calls do nothing.
  public func finish(_ succeeded: Bool) {
    let release = state.withLock { state -> (@Sendable () -> Void)? in
      guard state.succeeded == nil else { return nil }
      state.succeeded = succeeded
      defer { state.release = nil }
      return state.release
    }
    state.notifyAll()
    release?()
  }

  /// Waits; nil when the deadline came first.
  func wait(until deadline: UInt64?) -> Bool? {
    state.wait(until: deadline) { $0.succeeded }
  }

  /// `release` runs once the copies are over; now, if they are.
  func whenOver(_ release: @escaping @Sendable () -> Void) {
    let isOver = state.withLock { state in
      if state.succeeded == nil { state.release = release }
      return state.succeeded != nil
    }
    if isOver { release() }
  }
}

/// The simulated device: slots in ordinary memory, copied at once.
///
/// Has no device's bandwidth, latency or overlap; `kvstore replay` models those.
public final class SimulatedDevice: DeviceMedium {
  private let memory: MappedMemory
  private let slotByteCount: Int

  /// Memory for so many slots; paid for when it is first used.
  init(slotCount: Int, slotByteCount: Int) throws(StoreError) {
    self.slotByteCount = slotByteCount
    do throws(FileError) {
      memory = try MappedMemory.anonymous(byteCount: slotCount * slotByteCount)
    } catch {
      throw .outOfMemory
    }
  }

  /// All slots, one after the other.
  @unsafe public var bytes: UnsafeMutableRawBufferPointer { unsafe memory.bytes }

  /// Copies before it returns.
  public func copy(
    _ direction: DeviceDirection,
    _ copies: [DeviceCopy],
    _ completion: DeviceCompletion
  ) {
    var isWhole = true
    for copy in copies {
      guard let slot = unsafe memory.pointer(at: copy.slot * slotByteCount),
        let from = unsafe memory.pointer(at: copy.fromSlot * slotByteCount)
      else {
        isWhole = false
        continue
      }
      switch direction {
      case .withinDevice: unsafe slot.copyMemory(from: from, byteCount: copy.byteCount)
      case .toDevice:
        if let host = unsafe copy.hostMemory {
          unsafe slot.copyMemory(from: host, byteCount: copy.byteCount)
        }
      case .fromDevice:
        if let host = unsafe copy.hostMemory {
          unsafe host.copyMemory(from: slot, byteCount: copy.byteCount)
        }
      }
    }
    completion.finish(isWhole)
  }
}
