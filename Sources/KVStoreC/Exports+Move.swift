public import CKVStore
internal import KVCore
internal import KVStore

private let transferSizeMin = 56
private let resultSizeMin = 40

/// See kvstore.h.
@_cdecl("kvstore_restore")
public func exportRestore(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe move(namespace, prompt, transfer, result) {
    (namespace, prompt, transfer) throws(StoreError) in
    try namespace.restore(prompt, transfer)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_offload")
public func exportOffload(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe move(namespace, prompt, transfer, result) {
    (namespace, prompt, transfer) throws(StoreError) in
    try namespace.offload(prompt, transfer)
  }
}

private func move(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transferPointer: UnsafePointer<kvstore_transfer_t>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?,
  _ work: (Namespace, Prompt, Transfer) throws(StoreError) -> TransferResult
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    try unsafe clearResult(result)
    let (transfer, blockStatus) = try unsafe transferArgument(transferPointer)
    let moved = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try work(namespace, prompt, transfer)
    }
    return try unsafe answer(moved, blockStatus, result)
  } catch {
    return fail(error)
  }
}

/// Zeroes a caller's result, if there is one; checked before any work is done.
func clearResult(_ result: UnsafeMutablePointer<kvstore_transfer_result_t>?) throws(StoreError) {
  guard unsafe result != nil else { return }
  try unsafe copyStruct(kvstore_transfer_result_t(), to: result, minimum: resultSizeMin)
}

/// A caller's transfer in the façade's form, and where its statuses go.
func transferArgument(
  _ pointer: UnsafePointer<kvstore_transfer_t>?
) throws(StoreError) -> (Transfer, UnsafeMutablePointer<kvstore_status_t>?) {
  var transfer = unsafe kvstore_transfer_t()
  try unsafe copyStruct(pointer, over: &transfer, minimum: transferSizeMin)
  let flags = unsafe transfer.flags
  guard flags & ~UInt32(KVSTORE_TRANSFER_PRIORITY | KVSTORE_TRANSFER_WHOLE) == 0 else {
    throw .invalidArgument(.flags)
  }
  guard unsafe transfer.spans != nil || transfer.span_count == 0 else {
    throw .invalidArgument(.null)
  }
  guard unsafe transfer.first_block <= 1 << 31, unsafe transfer.block_count <= 1 << 31,
    unsafe transfer.prefix_block_count <= 1 << 31
  else {
    throw .invalidArgument(.blockRange)
  }
  guard unsafe (0...1 << 40).contains(transfer.span_count) else {
    throw .invalidArgument(.spanCount)
  }
  assert(spanLayoutAgrees())
  let spans = unsafe UnsafeMutableRawPointer(transfer.spans)?.assumingMemoryBound(
    to: TransferSpan.self
  )
  var ours = unsafe Transfer(
    firstBlock: Int(transfer.first_block),
    blockCount: Int(transfer.block_count),
    firstRegion: Int(transfer.first_region),
    regionCount: Int(transfer.region_count),
    timeoutNanoseconds: transfer.timeout_nanoseconds,
    spans: UnsafeMutableBufferPointer(start: spans, count: transfer.span_count)
  )
  ours.prefixBlockCount = unsafe Int(transfer.prefix_block_count)
  ours.ignoresWindows = flags & UInt32(KVSTORE_TRANSFER_WHOLE) != 0
  if flags & UInt32(KVSTORE_TRANSFER_PRIORITY) != 0 {
    guard unsafe transfer.priority <= 100 else { throw .invalidArgument(.priority) }
    ours.priority = UInt8(unsafe transfer.priority)
  }
  let nanoseconds = unsafe transfer.ttl_nanoseconds
  let kind = unsafe transfer.ttl_kind
  // The kind is checked in any case.
  let timeToLive = try timeToLive(nanoseconds, kind: kind)
  if nanoseconds != 0 { ours.timeToLive = nanoseconds == .max ? .unlimited : timeToLive }
  return unsafe (ours, transfer.block_status)
}

/// Fills a caller's statuses and result with what was moved; returns the overall status.
func answer(
  _ moved: TransferResult,
  _ blockStatus: UnsafeMutablePointer<kvstore_status_t>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) throws(StoreError) -> kvstore_status_t {
  if let blockStatus = unsafe blockStatus {
    for (index, outcome) in moved.outcomes.enumerated() {
      unsafe blockStatus[index] = status(of: outcome)
    }
  }
  var copy = kvstore_transfer_result_t()
  copy.blocks_done = UInt64(moved.doneBlockCount)
  copy.blocks_host = UInt64(moved.hostBlockCount)
  copy.blocks_disk = UInt64(moved.diskBlockCount)
  copy.bytes = UInt64(moved.byteCount)
  if unsafe result != nil { try unsafe copyStruct(copy, to: result, minimum: resultSizeMin) }
  return overall(moved)
}

func status(of outcome: BlockOutcome) -> kvstore_status_t {
  switch outcome {
  case .done: Status.ok
  case .miss: Status.miss
  case .bufferTooSmall: Status.bufferTooSmall
  case .full: Status.full
  case .parentMissing: Status.parentMissing
  case .busy: Status.busy
  case .declined: Status.declined
  }
}

private func overall(_ moved: TransferResult) -> kvstore_status_t {
  switch moved.firstProblem {
  case nil: Status.ok
  case .bufferTooSmall?:
    fail(
      Status.bufferTooSmall,
      "a region does not fit its span; the span's length says how many bytes it has"
    )
  case .parentMissing?:
    fail(
      Status.parentMissing,
      "the block before the first one offered is not stored: offload from an earlier block on"
    )
  case .full?: fail(.full)
  case .busy?: fail(.busy)
  case .miss?: Status.miss
  case .declined?: Status.declined
  case .done?: Status.ok
  }
}
