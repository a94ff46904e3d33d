import KVCore
import KVFile
import KVStore

/// This store, as an engine uses it.
struct StoreArm: CompareArm {
  let name = "kvstore"
  let isDurable = true

  private static let lookUpCount = 21

  func run(_ bench: Bench, _ folder: String) throws -> ArmTimes {
    let options = bench.options
    let memory = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    memory.fill(seed: options.seed)
    let target = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    let chain = BlockChain(memory, tokensPerBlock: options.tokensPerBlock, seed: options.seed)
    var times = ArmTimes(write: 0, coldRead: 0, lookUp: 0, warmRead: 0)
    do {
      let store = try Store.open(bench.configuration(folder))
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(bench.identity)
      var ignored: [UInt64] = []
      times.write = try nanoseconds {
        try chain.offload(to: namespace, latencies: &ignored)
        try store.flushAll()
      }
    }
    try bench.dropPageCache(of: folder)
    let store = try Store.open(bench.configuration(folder, hostBytes: bench.wholeHostBytes))
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(bench.identity)
    // The others find their blocks while they read them; so does this one.
    times.coldRead = try nanoseconds {
      _ = try chain.peek(chain.blocks.count, in: namespace)
      try chain.restore(chain.blocks, from: namespace, into: target)
    }
    try check(chain, target)
    var lookUps = Series()
    for _ in 0..<Self.lookUpCount {
      lookUps.values.append(
        Double(try nanoseconds { _ = try chain.peek(chain.blocks.count, in: namespace) })
      )
    }
    times.lookUp = UInt64(lookUps.median)
    target.clear()
    // On as many threads as the others read with: here one alone is bounded by its memcpy.
    let threads = options.threads
    let count = chain.blocks.count
    times.warmRead = try nanoseconds {
      try onThreads(threads, pieceCount: threads) { (_, piece) throws in
        let part = piece * count / threads..<(piece + 1) * count / threads
        if !part.isEmpty { try chain.restore(part, from: namespace, into: target) }
      }
    }
    try check(chain, target)
    return times
  }

  private func check(_ chain: BlockChain, _ target: BlockMemory) throws {
    if let block = chain.memory.firstDifference(from: target, in: chain.blocks) {
      throw CommandFailure("WRONG BYTES: block \(block) came back differently")
    }
  }
}

/// A file for each block, written under another name and renamed: what the file tiers of engines do.
struct FileArm: CompareArm {
  /// With each file synced before it is renamed, and the folders at the end.
  let isDurable: Bool

  var name: String { isDurable ? "file per block, fsync" : "file per block" }

  func run(_ bench: Bench, _ folder: String) throws -> ArmTimes {
    let options = bench.options
    let blockBytes = options.blockBytes.byteCount
    let memory = try BlockMemory(regionByteCounts: [blockBytes], blockCount: options.blockCount)
    memory.fill(seed: options.seed)
    let target = try BlockMemory(regionByteCounts: [blockBytes], blockCount: options.blockCount)
    let storage = bench.storage
    try storage.makeDirectory(folder)
    let folders = (0..<16).map { "\(folder)/\(String($0, radix: 16))" }
    for one in folders { try storage.makeDirectory(one) }
    let paths = (0..<options.blockCount).map { block in
      "\(folders[block % folders.count])/\(String(format: "%032x", block &* 2_654_435_761)).kv"
    }
    let isDurable = isDurable
    let write = try nanoseconds {
      try onThreads(options.threads, pieceCount: paths.count) { _, block throws(FileError) in
        let temporary = paths[block] + ".tmp"
        let file = try storage.openFile(temporary, mode: .createNew, direct: false)
        unsafe try file.write(UnsafeRawBufferPointer(memory.bytes(of: block)), at: 0)
        if isDurable { try file.sync() }
        file.close()
        try storage.rename(temporary, to: paths[block])
      }
      if isDurable { for one in folders { try storage.syncDirectory(one) } }
    }
    for path in paths {
      let file = try storage.openFile(path, mode: .existing, direct: false)
      try file.sync()
      try file.dropPageCache()
      file.close()
    }
    func read() throws -> UInt64 {
      target.clear()
      let time = try nanoseconds {
        try onThreads(options.threads, pieceCount: paths.count) { _, block throws(FileError) in
          let file = try storage.openFile(paths[block], mode: .readOnly, direct: false)
          unsafe try file.read(into: target.bytes(of: block), at: 0)
          file.close()
        }
      }
      if let block = memory.firstDifference(from: target, in: 0..<paths.count) {
        throw CommandFailure("WRONG BYTES: file \(paths[block])")
      }
      return time
    }
    let coldRead = try read()
    let lookUp = try nanoseconds {
      for path in paths where try !storage.fileExists(path) {
        throw CommandFailure("\(path) is not there")
      }
    }
    return ArmTimes(write: write, coldRead: coldRead, lookUp: lookUp, warmRead: try read())
  }
}

/// Another store, in a process of its own.
struct PeerArm: CompareArm {
  let name: String
  let isDurable = true
  private let program: String
  private let store: String

  init(_ program: String, _ store: String, _ name: String) {
    self.program = program
    self.store = store
    self.name = name
  }

  /// Blocks that are made durable together, as the store's own offloads of this bench are.
  private static let batchCount = 16

  func run(_ bench: Bench, _ folder: String) throws -> ArmTimes {
    let options = bench.options
    try bench.storage.makeDirectory(folder)
    let child = try ChildProcess(
      program,
      [
        store, folder, "\(options.blockBytes.byteCount)", "\(options.blockCount)",
        "\(Self.batchCount)", "\(options.threads)", "\(options.seed)",
      ]
    )
    let line = try child.readLine()
    try child.waitForEnd()
    let values = line.split(separator: " ").compactMap { UInt64($0) }
    guard values.count == 4 else { throw CommandFailure("\(program) printed: \(line)") }
    return ArmTimes(
      write: values[0],
      coldRead: values[1],
      lookUp: values[2],
      warmRead: values[3]
    )
  }
}
