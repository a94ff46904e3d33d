internal import CKVStore
internal import KVCore
internal import KVStore

private let promptSizeMin = 56

/// Checks a caller's prompt against the namespace's identity mode and lends it in the façade's form.
func withPrompt<Result>(
  _ pointer: UnsafePointer<kvstore_prompt_t>?,
  in namespace: Namespace,
  _ body: (Prompt) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  try unsafe withPrompt(pointer, namespace.promptForm, body)
}

/// `withPrompt` for a section, whose prompts are those of the namespace that it belongs to.
func withPrompt<Result>(
  _ pointer: UnsafePointer<kvstore_prompt_t>?,
  of section: Namespace,
  _ body: (Prompt) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  guard let form = section.ownerPromptForm else { throw .invalidArgument(.namespace) }
  return try unsafe withPrompt(pointer, form, body)
}

private func withPrompt<Result>(
  _ pointer: UnsafePointer<kvstore_prompt_t>?,
  _ form: PromptForm,
  _ body: (Prompt) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  var prompt = unsafe kvstore_prompt_t()
  try unsafe copyStruct(pointer, over: &prompt, minimum: promptSizeMin)
  guard unsafe prompt.flags == 0 else { throw .invalidArgument(.flags) }
  let extra = try unsafe extraBytes(prompt)
  switch form.identityMode {
  case .tokens:
    guard unsafe prompt.digests == nil, unsafe prompt.digest_count == 0 else {
      throw .invalidArgument(.wrongIdentityMode)
    }
    guard unsafe prompt.tokens != nil || prompt.token_count == 0 else {
      throw .invalidArgument(.null)
    }
    guard unsafe (0...1 << 31).contains(prompt.token_count) else {
      throw .invalidArgument(.blockRange)
    }
    return try body(
      unsafe Prompt(words: prompt.tokens, wordCount: prompt.token_count, extra: extra)
    )
  case .digest:
    guard unsafe prompt.tokens == nil, unsafe prompt.token_count == 0 else {
      throw .invalidArgument(.wrongIdentityMode)
    }
    return try unsafe withDigests(
      prompt.digests,
      prompt.digest_count,
      form,
      extra,
      body
    )
  }
}

/// Lends `count` digests as a prompt; copies them first when they are not aligned for words.
func withDigests<Result>(
  _ digests: UnsafeRawPointer?,
  _ count: Int,
  in namespace: Namespace,
  _ body: (Prompt) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  try unsafe withDigests(digests, count, namespace.promptForm, [], body)
}

private func withDigests<Result>(
  _ digests: UnsafeRawPointer?,
  _ count: Int,
  _ form: PromptForm,
  _ extra: [UnsafeRawBufferPointer],
  _ body: (Prompt) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  guard form.identityMode == .digest else {
    throw .invalidArgument(.wrongIdentityMode)
  }
  guard unsafe digests != nil || count == 0 else { throw .invalidArgument(.null) }
  guard (0...1 << 31).contains(count) else { throw .invalidArgument(.blockRange) }
  let byteCount = count * form.digestByteCount
  guard let digests = unsafe digests else {
    return try body(unsafe Prompt(words: nil, wordCount: 0, extra: extra))
  }
  if UInt(bitPattern: digests) % 4 == 0 {
    return try body(
      unsafe Prompt(
        words: digests.assumingMemoryBound(to: UInt32.self),
        wordCount: byteCount / 4,
        extra: extra
      )
    )
  }
  let aligned = UnsafeMutablePointer<UInt32>.allocate(capacity: max(byteCount / 4, 1))
  defer { unsafe aligned.deallocate() }
  unsafe UnsafeMutableRawPointer(aligned).copyMemory(from: digests, byteCount: byteCount)
  return try body(
    unsafe Prompt(words: aligned, wordCount: byteCount / 4, extra: extra)
  )
}

private func extraBytes(
  _ prompt: kvstore_prompt_t
) throws(StoreError) -> [UnsafeRawBufferPointer] {
  guard unsafe prompt.extra_count != 0 else { return unsafe [] }
  guard let extra = unsafe prompt.extra else { throw .invalidArgument(.null) }
  guard unsafe (1...1 << 28).contains(prompt.extra_count) else {
    throw .invalidArgument(.extraCount)
  }
  var list: [UnsafeRawBufferPointer] = unsafe []
  let entries = unsafe UnsafeBufferPointer(start: extra, count: prompt.extra_count)
  for index in entries.indices {
    let bytes = unsafe entries[index]
    guard unsafe bytes.length == 0 || bytes.data != nil else { throw .invalidArgument(.null) }
    guard unsafe (0...65_536).contains(bytes.length) else {
      throw .invalidArgument(.extraByteCount)
    }
    unsafe list.append(UnsafeRawBufferPointer(start: bytes.data, count: bytes.length))
  }
  return unsafe list
}
