public import CKVStore
internal import KVCore
internal import KVStore

private let deviceConfigSizeMin = 32
private let resultSizeMin = 40

extension Device: StoreOwned {}

/// See kvstore.h.
@_cdecl("kvstore_device_attach")
public func exportDeviceAttach(
  _ namespace: OpaquePointer?,
  _ config: UnsafePointer<kvstore_device_config_t>?,
  _ deviceOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  guard let deviceOut = unsafe deviceOut else { return fail(.invalidArgument(.null)) }
  unsafe deviceOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    var copy = unsafe kvstore_device_config_t()
    try unsafe copyStruct(config, over: &copy, minimum: deviceConfigSizeMin)
    guard unsafe copy.flags == 0 else { throw .invalidArgument(.flags) }
    var medium: EngineDevice?
    if let function = unsafe copy.copy {
      medium = unsafe EngineDevice(function: function, context: copy.context)
    }
    let slotCount = unsafe Int(clamping: copy.slot_count)
    let device = try namespace.attachDevice(slotCount: slotCount, medium: medium)
    unsafe deviceOut.pointee = HandleTable.insert(device, kind: .device)
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_device_detach")
public func exportDeviceDetach(_ device: OpaquePointer?) -> Int32 {
  guard unsafe device != nil else { return Status.ok }
  guard let open = unsafe HandleTable.device(device) else {
    return unsafe failBadHandle(device, "device")
  }
  guard open.detach() else {
    return fail(
      Status.busy,
      "copies of the device are in flight: try again once kvstore_device_copy_done has reported them"
    )
  }
  _ = unsafe HandleTable.remove(device, kind: .device)
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_device_copy_done")
public func exportDeviceCopyDone(_ completion: UInt64, _ status: Int32) -> Int32 {
  guard let waiting = CompletionTable.remove(completion) else {
    return fail(Status.badHandle, "no copies under this number, or they were over before")
  }
  waiting.finish(status == Status.ok)
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_device_memory")
public func exportDeviceMemory(
  _ device: OpaquePointer?,
  _ base: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
  _ slotBytes: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let base = unsafe base, let slotBytes = unsafe slotBytes else {
    return fail(.invalidArgument(.null))
  }
  unsafe base.pointee = nil
  unsafe slotBytes.pointee = 0
  guard let device = unsafe HandleTable.device(device) else {
    return unsafe failBadHandle(device, "device")
  }
  unsafe slotBytes.pointee = UInt64(device.slotByteCount)
  unsafe base.pointee = device.simulated?.bytes.baseAddress
  return Status.ok
}

// MARK: Sequences

/// See kvstore.h.
@_cdecl("kvstore_sequence_create")
public func exportSequenceCreate(
  _ device: OpaquePointer?,
  _ sequenceOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let sequenceOut = unsafe sequenceOut else { return fail(.invalidArgument(.null)) }
  unsafe sequenceOut.pointee = 0
  return unsafe withDevice(device) { (device) throws(StoreError) in
    unsafe sequenceOut.pointee = try device.createSequence()
    return Status.ok
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_fork")
public func exportSequenceFork(
  _ device: OpaquePointer?,
  _ sequence: UInt64,
  _ sequenceOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let sequenceOut = unsafe sequenceOut else { return fail(.invalidArgument(.null)) }
  unsafe sequenceOut.pointee = 0
  return unsafe withDevice(device) { (device) throws(StoreError) in
    unsafe sequenceOut.pointee = try device.fork(sequence)
    return Status.ok
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_free")
public func exportSequenceFree(_ device: OpaquePointer?, _ sequence: UInt64) -> Int32 {
  unsafe withDevice(device) { (device) throws(StoreError) in
    try device.free(sequence)
    return Status.ok
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_append")
public func exportSequenceAppend(
  _ device: OpaquePointer?,
  _ sequence: UInt64,
  _ tokens: UnsafePointer<UInt32>?,
  _ tokenCount: Int,
  _ timeoutNanoseconds: UInt64
) -> Int32 {
  unsafe withDevice(device) { (device) throws(StoreError) in
    guard unsafe tokens != nil || tokenCount == 0 else { throw .invalidArgument(.null) }
    guard (0...1 << 31).contains(tokenCount) else { throw .invalidArgument(.blockRange) }
    try device.append(
      sequence,
      unsafe Array(UnsafeBufferPointer(start: tokens, count: tokenCount)),
      timeoutNanoseconds: timeoutNanoseconds
    )
    return Status.ok
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_table")
public func exportSequenceTable(
  _ device: OpaquePointer?,
  _ sequence: UInt64,
  _ slots: UnsafeMutablePointer<UInt64>?,
  _ capacity: Int,
  _ countOut: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let countOut = unsafe countOut else { return fail(.invalidArgument(.null)) }
  unsafe countOut.pointee = 0
  return unsafe withDevice(device) { (device) throws(StoreError) in
    guard unsafe slots != nil || capacity == 0 else { throw .invalidArgument(.null) }
    let table = try device.blockTable(sequence)
    unsafe countOut.pointee = table.count
    // size_t comes as Int: what is beyond its range is room enough.
    let room = capacity < 0 ? Int.max : capacity
    for index in 0..<min(table.count, room) {
      if let slots = unsafe slots { unsafe slots[index] = UInt64(table[index]) }
    }
    guard room >= table.count else {
      return fail(Status.bufferTooSmall, "the table has \(table.count) slots")
    }
    return Status.ok
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_restore")
public func exportSequenceRestore(
  _ device: OpaquePointer?,
  _ sequence: UInt64,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ timeoutNanoseconds: UInt64,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe withDevice(device) { (device) throws(StoreError) in
    try unsafe clearResult(result)
    let moved = try unsafe withPrompt(prompt, in: device.blocksOf) { (prompt) throws(StoreError) in
      try device.restore(sequence, prompt, timeoutNanoseconds: timeoutNanoseconds)
    }
    return try unsafe answer(moved, result)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_sequence_offload")
public func exportSequenceOffload(
  _ device: OpaquePointer?,
  _ sequence: UInt64,
  _ timeoutNanoseconds: UInt64,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe withDevice(device) { (device) throws(StoreError) in
    try unsafe clearResult(result)
    let moved = try device.offload(sequence, timeoutNanoseconds: timeoutNanoseconds)
    return try unsafe answer(moved, result)
  }
}

private func withDevice(
  _ handle: OpaquePointer?,
  _ body: (Device) throws(StoreError) -> Int32
) -> Int32 {
  guard let device = unsafe HandleTable.device(handle) else {
    return unsafe failBadHandle(handle, "device")
  }
  do throws(StoreError) {
    return try body(device)
  } catch {
    return fail(error)
  }
}

private func answer(
  _ moved: Device.TransferResult,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) throws(StoreError) -> Int32 {
  var copy = kvstore_transfer_result_t()
  copy.blocks_done = UInt64(moved.doneBlockCount)
  copy.blocks_host = UInt64(moved.hostBlockCount)
  copy.blocks_disk = UInt64(moved.diskBlockCount)
  copy.bytes = UInt64(moved.byteCount)
  if unsafe result != nil { try unsafe copyStruct(copy, to: result, minimum: resultSizeMin) }
  switch moved.end {
  case .full: return fail(.full)
  case .busy: return fail(.busy)
  default: return status(of: moved.end)
  }
}
