public import CKVStore
internal import KVCore
internal import KVStore

/// The size that the first header had.
private let configSizeMin = 208

private func defaultConfig() -> kvstore_namespace_config_t {
  var config = unsafe kvstore_namespace_config_t()
  unsafe config.struct_size = UInt32(MemoryLayout<kvstore_namespace_config_t>.size)
  unsafe config.tensor_parallel_size = 1
  unsafe config.pipeline_parallel_size = 1
  unsafe config.context_parallel_size = 1
  unsafe config.extra_bytes_max = 256
  unsafe config.quota_bytes = .max
  unsafe config.ttl_nanoseconds = .max
  return unsafe config
}

/// See kvstore.h.
@_cdecl("kvstore_namespace_config_init")
public func exportNamespaceConfigInit(
  _ config: UnsafeMutablePointer<kvstore_namespace_config_t>?,
  _ structSize: Int
) -> Int32 {
  guard let config = unsafe config else { return fail(.invalidArgument(.null)) }
  let ours = unsafe MemoryLayout<kvstore_namespace_config_t>.size
  guard isStructSize(structSize, minimum: configSizeMin, maximum: ours) else {
    return fail(.invalidArgument(.structSize))
  }
  var defaults = unsafe defaultConfig()
  unsafe defaults.struct_size = UInt32(structSize)
  unsafe withUnsafeBytes(of: &defaults) { source in
    guard let base = source.baseAddress else { return }
    unsafe UnsafeMutableRawPointer(config).copyMemory(from: base, byteCount: structSize)
  }
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_namespace_open")
public func exportNamespaceOpen(
  _ store: OpaquePointer?,
  _ config: UnsafePointer<kvstore_namespace_config_t>?,
  _ namespaceOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  guard let namespaceOut = unsafe namespaceOut else { return fail(.invalidArgument(.null)) }
  unsafe namespaceOut.pointee = nil
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    let config = try unsafe checked(config)
    let identity = try unsafe identity(config)
    let limits = try unsafe limits(config)
    let onlyExisting = unsafe config.flags & UInt32(KVSTORE_NAMESPACE_EXISTING) != 0
    let namespace =
      try onlyExisting
      ? store.openExistingNamespace(identity, limits: limits)
      : store.openNamespace(identity, limits: limits)
    guard let namespace else { return Status.miss }
    unsafe namespaceOut.pointee = HandleTable.insert(namespace, kind: .namespace)
    return Status.ok
  } catch {
    return fail(error)
  }
}

private func checked(
  _ pointer: UnsafePointer<kvstore_namespace_config_t>?
) throws(StoreError) -> kvstore_namespace_config_t {
  var config = unsafe defaultConfig()
  try unsafe copyStruct(pointer, over: &config, minimum: configSizeMin)
  guard
    unsafe config.flags & ~UInt32(KVSTORE_NAMESPACE_REGIONS_VARIABLE | KVSTORE_NAMESPACE_EXISTING)
      == 0,
    unsafe config.reserved == 0, unsafe config.reserved2 == 0
  else { throw .invalidArgument(.flags) }
  return unsafe config
}

/// KVSTORE_KEEP is nil: as it is.
private func limits(_ config: kvstore_namespace_config_t) throws(StoreError) -> NamespaceLimits {
  var limits = NamespaceLimits()
  if unsafe config.quota_bytes != .max { limits.quotaBytes = unsafe config.quota_bytes }
  if unsafe config.ttl_nanoseconds != .max {
    limits.timeToLive = try timeToLive(
      unsafe config.ttl_nanoseconds,
      kind: unsafe config.ttl_kind
    )
  }
  return limits
}

/// 0 is unlimited.
func timeToLive(_ nanoseconds: UInt64, kind: UInt32) throws(StoreError) -> TimeToLive {
  switch (nanoseconds, kind) {
  case (0, UInt32(KVSTORE_TTL_IDLE)), (0, UInt32(KVSTORE_TTL_ABSOLUTE)): return .unlimited
  case (_, UInt32(KVSTORE_TTL_IDLE)): return .idle(nanoseconds: nanoseconds)
  case (_, UInt32(KVSTORE_TTL_ABSOLUTE)): return .absolute(nanoseconds: nanoseconds)
  default: throw .invalidArgument(.timeToLive)
  }
}

private func identity(
  _ config: kvstore_namespace_config_t
) throws(StoreError) -> NamespaceIdentity {
  guard let mode = unsafe IdentityMode(rawValue: config.identity_mode) else {
    throw .invalidArgument(.identityMode)
  }
  var identity = NamespaceIdentity()
  identity.identityMode = mode
  identity.regionsAreVariable =
    unsafe config.flags & UInt32(KVSTORE_NAMESPACE_REGIONS_VARIABLE) != 0
  identity.tokensPerBlock = unsafe Int(config.tokens_per_block)
  identity.digestByteCount = unsafe Int(config.digest_bytes)
  guard unsafe (1...4096).contains(config.region_count) else {
    throw .invalidArgument(.regionCount)
  }
  guard let regionBytes = unsafe config.region_bytes else { throw .invalidArgument(.null) }
  identity.regionByteCounts = unsafe UnsafeBufferPointer(
    start: regionBytes,
    count: Int(config.region_count)
  ).map { Int(clamping: $0) }
  identity.groups = try unsafe groups(config)
  identity.modelName = try unsafe text(config.model_name)
  identity.weightsDigest = try unsafe byteArray(config.weights_digest)
  identity.adapterDigest = try unsafe byteArray(config.adapter_digest)
  identity.tokenizerDigest = try unsafe byteArray(config.tokenizer_digest)
  identity.kvDtype = try unsafe text(config.kv_dtype)
  identity.kvQuantization = try unsafe text(config.kv_quantization)
  identity.layout = try unsafe text(config.layout)
  identity.rope = try unsafe text(config.rope)
  identity.engineFormat = try unsafe text(config.engine_format)
  identity.engineBytes = try unsafe byteArray(config.engine_bytes)
  identity.shape.layerCount = unsafe Int(config.layer_count)
  identity.shape.kvHeadCount = unsafe Int(config.kv_head_count)
  identity.shape.headSize = unsafe Int(config.head_size)
  identity.parallelism.tensorRank = unsafe Int(config.tensor_parallel_rank)
  identity.parallelism.tensorSize = unsafe Int(config.tensor_parallel_size)
  identity.parallelism.pipelineRank = unsafe Int(config.pipeline_parallel_rank)
  identity.parallelism.pipelineSize = unsafe Int(config.pipeline_parallel_size)
  identity.parallelism.contextRank = unsafe Int(config.context_parallel_rank)
  identity.parallelism.contextSize = unsafe Int(config.context_parallel_size)
  identity.salt = try unsafe byteArray(config.salt)
  identity.extraByteCountMax = unsafe Int(config.extra_bytes_max)
  return identity
}

private func groups(_ config: kvstore_namespace_config_t) throws(StoreError) -> [KVCacheGroup] {
  guard unsafe config.group_count != 0 else { return [] }
  guard let groups = unsafe config.groups else { throw .invalidArgument(.null) }
  // Each has a region of its own; a size_t beyond Int's range is negative here.
  guard unsafe (1...Int(config.region_count)).contains(config.group_count) else {
    throw .invalidArgument(.groups)
  }
  return try unsafe UnsafeBufferPointer(start: groups, count: config.group_count).map {
    (group) throws(StoreError) in
    guard group.reserved == 0 else { throw .invalidArgument(.flags) }
    let first = Int(group.first_region)
    return KVCacheGroup(
      regions: first..<first + Int(group.region_count),
      windowTokenCount: Int(group.window_tokens)
    )
  }
}

/// See kvstore.h.
@_cdecl("kvstore_namespace_close")
public func exportNamespaceClose(_ namespace: OpaquePointer?) -> Int32 {
  guard unsafe namespace != nil else { return Status.ok }
  guard unsafe HandleTable.remove(namespace, kind: .namespace) != nil else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_namespace_id")
public func exportNamespaceID(
  _ namespace: OpaquePointer?,
  _ idOut: UnsafeMutablePointer<UInt32>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  guard let idOut = unsafe idOut else { return fail(.invalidArgument(.null)) }
  unsafe idOut.pointee = namespace.id.rawValue
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_namespace_purge")
public func exportNamespacePurge(
  _ namespace: OpaquePointer?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = 0 }
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let count = try namespace.purge()
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(count) }
    return count > 0 ? Status.ok : Status.miss
  } catch {
    return fail(error)
  }
}
