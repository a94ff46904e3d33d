public import CKVStore
internal import KVCore
internal import KVStore

private let matchSizeMin = 48

/// See kvstore.h.
@_cdecl("kvstore_session_begin")
public func exportSessionBegin(
  _ namespace: OpaquePointer?,
  _ name: UnsafePointer<CChar>?,
  _ sessionOut: UnsafeMutablePointer<OpaquePointer?>?,
  _ idOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let sessionOut = unsafe sessionOut else { return fail(.invalidArgument(.null)) }
  unsafe sessionOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    var text = ""
    if let name = unsafe name {
      guard let valid = unsafe String(validatingCString: name) else {
        throw .invalidArgument(.textNotUTF8)
      }
      text = valid
    }
    let session = try namespace.beginSession(text)
    if let idOut = unsafe idOut { unsafe idOut.pointee = session.id }
    unsafe sessionOut.pointee = HandleTable.insert(session, kind: .session)
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_session_match")
public func exportSessionMatch(
  _ session: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64,
  _ match: UnsafeMutablePointer<kvstore_match_t>?
) -> Int32 {
  guard let session = unsafe HandleTable.session(session) else {
    return unsafe failBadHandle(session, "session")
  }
  do throws(StoreError) {
    let options = try matchOptions(flags, leaseNanoseconds)
    try unsafe copyStruct(kvstore_match_t(), to: match, minimum: matchSizeMin)
    let result = try unsafe withPrompt(prompt, in: session.namespace) {
      (prompt) throws(StoreError) in
      try session.match(prompt, options: options, leaseNanoseconds: leaseNanoseconds)
    }
    return try unsafe answer(result, match)
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_session_step")
public func exportSessionStep(
  _ session: OpaquePointer?,
  _ tokensComputed: UInt64,
  _ stepOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let session = unsafe HandleTable.session(session) else {
    return unsafe failBadHandle(session, "session")
  }
  do throws(StoreError) {
    let computed = tokensComputed == .max ? nil : Int(clamping: tokensComputed)
    let number = try session.step(computedTokenCount: computed)
    if let stepOut = unsafe stepOut { unsafe stepOut.pointee = UInt64(number ?? 0) }
    return number == nil ? Status.miss : Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_session_touch")
public func exportSessionTouch(
  _ session: OpaquePointer?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let session = unsafe HandleTable.session(session) else {
    return unsafe failBadHandle(session, "session")
  }
  do throws(StoreError) {
    let count = try session.touch()
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(count) }
    return count == 0 ? Status.miss : Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_session_set_ttl")
public func exportSessionSetTTL(
  _ session: OpaquePointer?,
  _ ttlNanoseconds: UInt64,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let session = unsafe HandleTable.session(session) else {
    return unsafe failBadHandle(session, "session")
  }
  do throws(StoreError) {
    let count = try session.keep(nanoseconds: ttlNanoseconds)
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(count) }
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_session_end")
public func exportSessionEnd(_ session: OpaquePointer?) -> Int32 {
  guard unsafe session != nil else { return Status.ok }
  guard let open = unsafe HandleTable.session(session) else {
    return unsafe failBadHandle(session, "session")
  }
  do throws(StoreError) {
    try open.end()
  } catch .forked {
    // In a forked child the handle stays the parent's.
    return fail(.forked)
  } catch {
    _ = unsafe HandleTable.remove(session, kind: .session)
    return fail(error)
  }
  _ = unsafe HandleTable.remove(session, kind: .session)
  return Status.ok
}
