public import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_prefetch")
public func exportPrefetch(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let (stored, started) = try unsafe withPrompt(prompt, in: namespace) {
      (prompt) throws(StoreError) in
      try namespace.prefetch(prompt)
    }
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(started) }
    return stored == 0 ? Status.miss : Status.ok
  } catch {
    return fail(error)
  }
}

// MARK: Views

/// See kvstore.h.
@_cdecl("kvstore_restore_view")
public func exportRestoreView(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ viewOut: UnsafeMutablePointer<OpaquePointer?>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  guard let viewOut = unsafe viewOut else { return fail(.invalidArgument(.null)) }
  unsafe viewOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    try unsafe clearResult(result)
    let (transfer, blockStatus) = try unsafe transferArgument(transfer)
    let view = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.checkSpanCount(transfer, prompt)
      return try namespace.view(prompt, transfer)
    }
    let regions = namespace.regions(of: transfer)
    unsafe fill(transfer.spans) { index in
      unsafe view.bytes(
        block: transfer.firstBlock + index / regions.count,
        region: regions.lowerBound + index % regions.count
      ).map { unsafe UnsafeMutableRawBufferPointer(mutating: $0) }
    }
    if view.result.doneBlockCount > 0 {
      unsafe viewOut.pointee = HandleTable.insert(View(view, of: namespace), kind: .view)
    } else {
      view.release()
    }
    return try unsafe answer(view.result, blockStatus, result)
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_view_release")
public func exportViewRelease(_ view: OpaquePointer?) -> Int32 {
  guard unsafe view != nil else { return Status.ok }
  guard let open = unsafe HandleTable.view(view) else { return unsafe failBadHandle(view, "view") }
  guard !open.view.isForked else { return fail(.forked) }
  guard unsafe HandleTable.remove(view, kind: .view) != nil else {
    return unsafe failBadHandle(view, "view")
  }
  open.view.release()
  return Status.ok
}

// MARK: Reservations

/// See kvstore.h.
@_cdecl("kvstore_offload_reserve")
public func exportOffloadReserve(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ reservationNanoseconds: UInt64,
  _ reservationOut: UnsafeMutablePointer<OpaquePointer?>?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  guard let reservationOut = unsafe reservationOut else { return fail(.invalidArgument(.null)) }
  unsafe reservationOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    try unsafe clearResult(result)
    let (transfer, blockStatus) = try unsafe transferArgument(transfer)
    let reservation = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.checkSpanCount(transfer, prompt)
      return try namespace.reserve(
        prompt,
        transfer,
        durationNanoseconds: reservationNanoseconds
      )
    }
    let regions = namespace.regions(of: transfer)
    unsafe fill(transfer.spans) { index in
      unsafe reservation.bytes(
        block: transfer.firstBlock + index / regions.count,
        region: index % regions.count
      )
    }
    if reservation.blocks.isEmpty {
      reservation.abort()
    } else {
      unsafe reservationOut.pointee = HandleTable.insert(
        Reservation(reservation, firstBlock: transfer.firstBlock, of: namespace),
        kind: .reservation
      )
    }
    return try unsafe answer(reservation.result, blockStatus, result)
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_offload_commit")
public func exportOffloadCommit(
  _ reservation: OpaquePointer?,
  _ spans: UnsafePointer<kvstore_span_t>?,
  _ spanCount: Int,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  guard let open = unsafe HandleTable.reservation(reservation) else {
    return unsafe failBadHandle(reservation, "reservation")
  }
  do throws(StoreError) {
    try unsafe clearResult(result)
    let lengths = try unsafe lengths(of: open, spans, spanCount)
    let moved = try open.reservation.commit(lengths: lengths)
    guard unsafe HandleTable.remove(reservation, kind: .reservation) != nil else {
      return unsafe failBadHandle(reservation, "reservation")
    }
    return try unsafe answer(moved, nil, result)
  } catch {
    switch error {
    // The reservation is still the caller's.
    case .invalidArgument, .forked, .poisoned: return fail(error)
    default:
      _ = unsafe HandleTable.remove(reservation, kind: .reservation)
      return fail(error)
    }
  }
}

/// The lengths of the blocks that are to be committed, out of spans of the whole range; nil when none were given.
private func lengths(
  of open: Reservation,
  _ spans: UnsafePointer<kvstore_span_t>?,
  _ spanCount: Int
) throws(StoreError) -> [Int]? {
  guard let spans = unsafe spans else {
    guard spanCount == 0 else { throw .invalidArgument(.null) }
    return nil
  }
  let regionCount = open.namespace.identity.regionByteCounts.count
  let blocks = open.reservation.blocks
  guard
    spanCount == (blocks.upperBound - open.firstBlock) * regionCount
      || spanCount == open.reservation.result.outcomes.count * regionCount
  else { throw .invalidArgument(.spanCount) }
  let first = (blocks.lowerBound - open.firstBlock) * regionCount
  var lengths: [Int] = []
  for index in first..<first + blocks.count * regionCount {
    // size_t comes as Int: what is beyond its range is too long.
    let length = unsafe spans[index].length
    guard length >= 0 else { throw .invalidArgument(.spanLength) }
    lengths.append(length)
  }
  return lengths
}

/// See kvstore.h.
@_cdecl("kvstore_offload_abort")
public func exportOffloadAbort(_ reservation: OpaquePointer?) -> Int32 {
  guard unsafe reservation != nil else { return Status.ok }
  guard let open = unsafe HandleTable.reservation(reservation) else {
    return unsafe failBadHandle(reservation, "reservation")
  }
  guard !open.reservation.isForked else { return fail(.forked) }
  guard unsafe HandleTable.remove(reservation, kind: .reservation) != nil else {
    return unsafe failBadHandle(reservation, "reservation")
  }
  open.reservation.abort()
  return Status.ok
}

// MARK: Spans

/// Tells the caller where each region is; those that there are none of get a null pointer.
private func fill(
  _ spans: UnsafeMutableBufferPointer<TransferSpan>,
  _ bytes: (Int) -> UnsafeMutableRawBufferPointer?
) {
  for index in spans.indices {
    let region = unsafe bytes(index)
    let count = unsafe region?.count ?? 0
    unsafe spans[index] = unsafe TransferSpan(
      data: region?.baseAddress,
      capacity: count,
      length: count
    )
  }
}

extension Namespace {
  fileprivate func regions(of transfer: Transfer) -> Range<Int> {
    let count = identity.regionByteCounts.count
    let end = transfer.regionCount == 0 ? count : transfer.firstRegion + transfer.regionCount
    return transfer.firstRegion..<max(transfer.firstRegion, end)
  }

  /// There is a span for each block and region, before anything is lent into it.
  fileprivate func checkSpanCount(
    _ transfer: Transfer,
    _ prompt: Prompt
  ) throws(StoreError) {
    let wordsPerBlock =
      identity.identityMode == .tokens ? identity.tokensPerBlock : identity.digestByteCount / 4
    let blockCount =
      transfer.blockCount == 0
      ? prompt.wordCount / wordsPerBlock - transfer.firstBlock : transfer.blockCount
    let (count, overflow) = max(blockCount, 0)
      .multipliedReportingOverflow(by: regions(of: transfer).count)
    guard !overflow, unsafe transfer.spans.count == count else {
      throw .invalidArgument(.spanCount)
    }
  }
}
