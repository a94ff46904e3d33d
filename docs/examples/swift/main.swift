// Restore what is stored of a prompt, compute and store the rest.
//
//     .package(path: "kvstore"), and .product(name: "KVStore", package: "kvstore") in the target's dependencies
//     swift run restore FOLDER
//
// The first run computes all blocks, the second one none.
import KVCore
import KVStore

let (blockCount, tokensPerBlock, blockByteCount) = (64, 16, 65_536)

// A namespace holds what changes the bytes of KV.
var identity = NamespaceIdentity()
identity.modelName = "example"
identity.tokensPerBlock = tokensPerBlock
identity.regionByteCounts = [blockByteCount]

let tokens = (0..<blockCount * tokensPerBlock).map { UInt32($0) }
// Stands for an engine's paged memory; a span is one region of one block in it.
let memory = UnsafeMutableRawBufferPointer.allocate(
  byteCount: blockCount * blockByteCount,
  alignment: 4096
)
let spans = UnsafeMutableBufferPointer<TransferSpan>.allocate(capacity: blockCount)
for block in 0..<blockCount {
  spans.initializeElement(
    at: block,
    to: TransferSpan(
      data: memory.baseAddress.map { $0 + block * blockByteCount },
      capacity: blockByteCount,
      length: blockByteCount
    )
  )
}

/// Stands for prefill: the KV of a block is a function of all tokens up to it.
func value(_ block: Int) -> UInt8 { UInt8((block * 31 + 7) % 256) }

// A store is a folder that never takes more than its capacity.
guard CommandLine.arguments.count == 2 else { fatalError("usage: restore FOLDER") }
var configuration = StoreConfiguration(path: CommandLine.arguments[1])
configuration.capacityBytes = 1 << 30
let store = try Store.open(configuration)
let namespace = try store.openNamespace(identity)

try tokens.withUnsafeBufferPointer { words in
  let prompt = Prompt(words: words.baseAddress, wordCount: words.count)

  // The longest stored prefix, which a lease keeps, straight into place.
  let match = try namespace.match(prompt)
  let stored = match.blockCount
  var restored = 0
  if stored > 0 {
    let wanted = Transfer(blockCount: stored, spans: .init(rebasing: spans[..<stored]))
    restored = try namespace.restore(prompt, wanted).doneBlockCount
  }
  _ = try store.releaseLease(match.lease)
  for block in 0..<restored {
    let bytes = memory[block * blockByteCount..<(block + 1) * blockByteCount]
    precondition(bytes.allSatisfy { $0 == value(block) })
  }
  print("restored \(restored) of \(blockCount) blocks")

  // What is left is computed and stored, from the first block on that was not restored.
  for block in restored..<blockCount {
    for offset in 0..<blockByteCount { memory[block * blockByteCount + offset] = value(block) }
  }
  if restored < blockCount {
    let rest = Transfer(firstBlock: restored, spans: .init(rebasing: spans[restored...]))
    _ = try namespace.offload(prompt, rest)
  }
  print("computed and stored \(blockCount - restored)")
}
_ = try store.flush()  // durable from here on
try store.close()
