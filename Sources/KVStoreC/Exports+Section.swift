public import CKVStore
internal import KVCore
internal import KVStore

private let matchSizeMin = 48

/// See kvstore.h.
@_cdecl("kvstore_section_open")
public func exportSectionOpen(
  _ namespace: OpaquePointer?,
  _ name: UnsafePointer<CChar>?,
  _ byteCountMax: UInt64,
  _ quotaBytes: UInt64,
  _ sectionOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  guard let sectionOut = unsafe sectionOut else { return fail(.invalidArgument(.null)) }
  unsafe sectionOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  guard let name = unsafe name else { return fail(.invalidArgument(.null)) }
  guard let text = unsafe String(validatingCString: name) else {
    return fail(.invalidArgument(.textNotUTF8))
  }
  do throws(StoreError) {
    let section = try namespace.openSection(
      text,
      byteCountMax: Int(clamping: byteCountMax),
      quotaBytes: quotaBytes == .max ? nil : quotaBytes
    )
    unsafe sectionOut.pointee = HandleTable.insert(section, kind: .namespace)
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_section_digest")
public func exportSectionDigest(
  _ section: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ blockCount: UInt64,
  _ digest: UnsafeMutableRawPointer?,
  _ capacity: Int,
  _ byteCountOut: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let section = unsafe HandleTable.namespace(section) else {
    return unsafe failBadHandle(section, "section")
  }
  guard unsafe digest != nil || capacity == 0 else { return fail(.invalidArgument(.null)) }
  do throws(StoreError) {
    let found = try unsafe withPrompt(prompt, of: section) { (prompt) throws(StoreError) in
      try section.sectionDigest(
        prompt,
        blockCount: blockCount == 0 ? nil : Int(clamping: blockCount)
      )
    }
    if let byteCountOut = unsafe byteCountOut { unsafe byteCountOut.pointee = found.count }
    // size_t comes as Int: what is beyond its range is room enough.
    guard let digest = unsafe digest, capacity < 0 || found.count <= capacity else {
      return fail(Status.bufferTooSmall, "the digest has \(found.count) bytes")
    }
    unsafe found.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      unsafe digest.copyMemory(from: base, byteCount: bytes.count)
    }
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_match_sections")
public func exportMatchSections(
  _ namespace: OpaquePointer?,
  _ sections: UnsafePointer<OpaquePointer?>?,
  _ sectionCount: Int,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ leaseNanoseconds: UInt64,
  _ matches: UnsafeMutablePointer<kvstore_match_t>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  guard let matches = unsafe matches, unsafe sections != nil || sectionCount == 0 else {
    return fail(.invalidArgument(.null))
  }
  // size_t comes as Int. No model has more kinds of state.
  guard (0...1024).contains(sectionCount) else { return fail(.invalidArgument(.namespace)) }
  var open: [Namespace] = []
  for index in 0..<sectionCount {
    let handle = unsafe sections?[index]
    guard let section = unsafe HandleTable.namespace(handle) else {
      return unsafe failBadHandle(handle, "section")
    }
    open.append(section)
  }
  do throws(StoreError) {
    let options = try matchOptions(flags, leaseNanoseconds)
    try unsafe copyStruct(
      kvstore_match_t(),
      toEachOf: matches,
      count: 1 + sectionCount,
      minimum: matchSizeMin
    )
    let results = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.match(prompt, with: open, options: options, leaseNanoseconds: leaseNanoseconds)
    }
    var status = Status.ok
    for (index, result) in results.enumerated() {
      let one = try unsafe answer(result, element(index, of: matches))
      if index == 0 || one != Status.ok { status = one }
    }
    return status
  } catch {
    return fail(error)
  }
}
