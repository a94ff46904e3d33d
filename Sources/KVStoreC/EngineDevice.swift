internal import CKVStore
internal import KVCore
internal import KVStore

/// A device of the engine's own, behind its copy function.
///
/// Unchecked: what `context` is, and that the function may be called by several threads, is the engine's to say (kvstore.h).
@safe struct EngineDevice: DeviceMedium, @unchecked Sendable {
  let function:
    @convention(c) (
      UnsafeMutableRawPointer?, UInt32, UnsafePointer<kvstore_device_copy_t>?, Int, UInt64
    ) -> Void
  let context: UnsafeMutableRawPointer?

  func copy(
    _ direction: DeviceDirection,
    _ copies: [DeviceCopy],
    _ completion: DeviceCompletion
  ) {
    let list = unsafe copies.map { copy in
      unsafe kvstore_device_copy_t(
        slot: UInt64(copy.slot),
        from_slot: UInt64(copy.fromSlot),
        host: copy.hostMemory,
        bytes: UInt64(copy.byteCount)
      )
    }
    let number = CompletionTable.insert(completion)
    unsafe list.withUnsafeBufferPointer { list in
      unsafe function(context, direction.rawValue, list.baseAddress, list.count, number)
    }
  }
}

/// Copies that an engine has started and not reported, by number.
enum CompletionTable {
  private struct State {
    var waiting: [UInt64: DeviceCompletion] = [:]
    var next: UInt64 = 1
  }

  private static let state = ForkLocal { State() }

  static func insert(_ completion: DeviceCompletion) -> UInt64 {
    state.withLock { state in
      defer { state.next += 1 }
      state.waiting[state.next] = completion
      return state.next
    }
  }

  static func remove(_ number: UInt64) -> DeviceCompletion? {
    state.withLock { $0.waiting.removeValue(forKey: number) }
  }
}
