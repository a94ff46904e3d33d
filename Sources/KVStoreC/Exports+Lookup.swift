public import CKVStore
internal import KVCore
internal import KVStore

private let matchSizeMin = 48

/// See kvstore.h.
@_cdecl("kvstore_block_keys")
public func exportBlockKeys(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ keys: UnsafeMutablePointer<kvstore_block_key_t>?,
  _ capacity: Int,
  _ countOut: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  guard let countOut = unsafe countOut, unsafe keys != nil || capacity == 0 else {
    return fail(.invalidArgument(.null))
  }
  do throws(StoreError) {
    let found = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.blockKeys(prompt)
    }
    unsafe countOut.pointee = found.count
    // size_t comes as Int: what is beyond its range is room enough.
    let room = capacity < 0 ? Int.max : capacity
    if let keys = unsafe keys {
      let destination = UnsafeMutableRawPointer(keys)
      for (index, key) in found.prefix(room).enumerated() {
        unsafe destination.storeBytes(
          of: key.high.bigEndian,
          toByteOffset: index * 16,
          as: UInt64.self
        )
        unsafe destination.storeBytes(
          of: key.low.bigEndian,
          toByteOffset: index * 16 + 8,
          as: UInt64.self
        )
      }
    }
    guard found.count <= room else {
      return fail(Status.bufferTooSmall, "the prompt has \(found.count) blocks")
    }
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_match")
public func exportMatch(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64,
  _ match: UnsafeMutablePointer<kvstore_match_t>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let options = try matchOptions(flags, leaseNanoseconds)
    try unsafe copyStruct(kvstore_match_t(), to: match, minimum: matchSizeMin)
    let result = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.match(prompt, options: options, leaseNanoseconds: leaseNanoseconds)
    }
    return try unsafe answer(result, match)
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_match_keys")
public func exportMatchKeys(
  _ namespace: OpaquePointer?,
  _ digests: UnsafeRawPointer?,
  _ digestCount: Int,
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64,
  _ match: UnsafeMutablePointer<kvstore_match_t>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let options = try matchOptions(flags, leaseNanoseconds)
    try unsafe copyStruct(kvstore_match_t(), to: match, minimum: matchSizeMin)
    let result = try unsafe withDigests(
      digests,
      digestCount,
      in: namespace
    ) { (prompt) throws(StoreError) in
      try namespace.match(prompt, options: options, leaseNanoseconds: leaseNanoseconds)
    }
    return try unsafe answer(result, match)
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_match_all")
public func exportMatchAll(
  _ namespaces: UnsafePointer<OpaquePointer?>?,
  _ namespaceCount: Int,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64,
  _ matches: UnsafeMutablePointer<kvstore_match_t>?
) -> Int32 {
  guard let namespaces = unsafe namespaces, let matches = unsafe matches else {
    return fail(.invalidArgument(.null))
  }
  // size_t comes as Int. No engine has more ranks.
  guard (1...65_536).contains(namespaceCount) else {
    return fail(.invalidArgument(.namespacesDiffer))
  }
  var open: [Namespace] = []
  for index in 0..<namespaceCount {
    guard let namespace = unsafe HandleTable.namespace(namespaces[index]) else {
      return unsafe failBadHandle(namespaces[index], "namespace")
    }
    open.append(namespace)
  }
  do throws(StoreError) {
    let options = try matchOptions(flags, leaseNanoseconds)
    try unsafe copyStruct(
      kvstore_match_t(),
      toEachOf: matches,
      count: namespaceCount,
      minimum: matchSizeMin
    )
    let results = try unsafe withPrompt(prompt, in: open[0]) { (prompt) throws(StoreError) in
      try Namespace.matchAll(
        open,
        prompt,
        options: options,
        leaseNanoseconds: leaseNanoseconds
      )
    }
    var status = Status.ok
    for (index, result) in results.enumerated() {
      status = try unsafe answer(result, element(index, of: matches))
    }
    return status
  } catch {
    return fail(error)
  }
}

func matchOptions(
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64
) throws(StoreError) -> MatchOptions {
  let known = UInt32(KVSTORE_MATCH_PEEK | KVSTORE_MATCH_LEAVE_ONE_TOKEN | KVSTORE_MATCH_REMOTE)
  guard flags & ~known == 0 else { throw .invalidArgument(.flags) }
  guard leaseNanoseconds <= Namespace.leaseNanosecondsMax else {
    throw .invalidArgument(.leaseDuration)
  }
  var options: MatchOptions = []
  if flags & UInt32(KVSTORE_MATCH_PEEK) != 0 { options.insert(.peek) }
  if flags & UInt32(KVSTORE_MATCH_LEAVE_ONE_TOKEN) != 0 { options.insert(.leaveOneToken) }
  if flags & UInt32(KVSTORE_MATCH_REMOTE) != 0 { options.insert(.remote) }
  return options
}

func answer(
  _ result: MatchResult,
  _ match: UnsafeMutablePointer<kvstore_match_t>?
) throws(StoreError) -> Int32 {
  var copy = kvstore_match_t()
  copy.tokens_matched = UInt64(result.tokenCount)
  copy.blocks_matched = UInt64(result.blockCount)
  copy.blocks_host = UInt64(result.hostBlockCount)
  copy.blocks_disk = UInt64(result.diskBlockCount)
  copy.lease = result.lease
  copy.estimated_restore_nanoseconds = result.restoreNanosecondsEstimated
  copy.blocks_archive = UInt64(result.archiveBlockCount)
  copy.being_fetched = result.isBeingFetched ? 1 : 0
  copy.blocks_remote = UInt64(result.remoteBlockCount)
  copy.estimated_fetch_nanoseconds = result.fetchNanosecondsEstimated
  try unsafe copyStruct(copy, to: match, minimum: matchSizeMin)
  if result.blockCount == 0 { return Status.miss }
  return result.leaseRefused
    ? fail(Status.full, "no lease is free: release some, or let them end") : Status.ok
}
