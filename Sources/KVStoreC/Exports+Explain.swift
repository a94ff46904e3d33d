public import CKVStore
internal import KVCore
internal import KVStore

private let explanationSizeMin = MemoryLayout<kvstore_explanation_t>.size

/// See kvstore.h.
@_cdecl("kvstore_explain")
public func exportExplain(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ explanation: UnsafeMutablePointer<kvstore_explanation_t>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    guard flags == 0 else { throw .invalidArgument(.flags) }
    try unsafe copyStruct(kvstore_explanation_t(), to: explanation, minimum: explanationSizeMin)
    let found = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.explain(prompt)
    }
    var copy = kvstore_explanation_t()
    copy.cause = found.cause.rawValue
    copy.blocks_asked = UInt64(found.blockCount)
    copy.blocks_matched = UInt64(found.matchedBlockCount)
    copy.tokens_matched = UInt64(found.matchedTokenCount)
    copy.divergence_token = UInt64(found.divergenceToken)
    copy.prompt_tokens = UInt64(found.promptTokenCount)
    copy.stored_tokens = UInt64(found.storedTokenCount)
    copy.tokens_lost = UInt64(found.lostTokenCount)
    copy.elsewhere_token = found.elsewhereDepth.map { UInt64($0) } ?? .max
    copy.left_nanoseconds = found.leftNanoseconds
    copy.branch_count = UInt64(found.branchCount)
    copy.other_namespace = found.otherNamespace?.rawValue ?? 0
    copy.other_tokens_matched = UInt64(found.otherMatchedTokenCount)
    if let nearest = found.branches.first {
      copy.nearest_run = nearest.position.run.rawValue
      copy.nearest_position = nearest.position.position
      let tokens = nearest.nextTokens.prefix(8)
      copy.nearest_token_count = UInt32(tokens.count)
      unsafe withUnsafeMutableBytes(of: &copy.nearest_tokens) { room in
        for (index, token) in tokens.enumerated() {
          unsafe room.storeBytes(of: token, toByteOffset: index * 4, as: UInt32.self)
        }
      }
    }
    unsafe withUnsafeMutableBytes(of: &copy.message) { room in
      // One byte stays 0. The texts are ASCII, so that no character is cut in two.
      unsafe room.copyBytes(from: found.message.utf8.prefix(room.count - 1))
    }
    try unsafe copyStruct(copy, to: explanation, minimum: explanationSizeMin)
    return Status.ok
  } catch {
    return fail(error)
  }
}
