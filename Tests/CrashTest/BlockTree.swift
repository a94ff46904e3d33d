import KVCore
import KVTestSupport

/// The blocks that a workload knows: a tree of token ids for each namespace, and each block's bytes.
struct BlockTree {
  struct Node {
    let namespace: Int
    let parent: Int?
    let tokens: [UInt32]
    var children: [Int] = []
  }

  private(set) var nodes: [Node] = []
  private let payloadByteCounts: [Int]
  /// Payloads are cut from it, each at a place of its own.
  private let pool: [UInt8]

  init(payloadByteCounts: [Int]) {
    self.payloadByteCounts = payloadByteCounts
    var generator = SeededGenerator(seed: 7)
    // Like fp16 numbers from 1 to 2, so that an archive has something to save.
    let words = (0..<(1 << 17)).map { _ in
      generator.next() & 0x03FF_03FF_03FF_03FF | 0x3C00_3C00_3C00_3C00
    }
    pool = words.withUnsafeBytes { Array($0) }
  }

  /// A new block; equal tokens in two namespaces are two blocks with different bytes.
  mutating func add(namespace: Int, after parent: Int?) -> Int {
    let siblings = nodes.count { $0.namespace == namespace && $0.parent == parent }
    let number = nodes.count
    let first = UInt32(parent.map { depth(of: $0) + 1 } ?? 0) << 16 | UInt32(siblings)
    nodes.append(
      Node(namespace: namespace, parent: parent, tokens: [first, 1, 2, 3])
    )
    if let parent { nodes[parent].children.append(number) }
    return number
  }

  func path(to node: Int) -> [Int] {
    var path = [node]
    while let parent = nodes[path[path.count - 1]].parent { path.append(parent) }
    return path.reversed()
  }

  func depth(of node: Int) -> Int { path(to: node).count - 1 }

  func tokens(of path: [Int]) -> [UInt32] { path.flatMap { nodes[$0].tokens } }

  /// A block and all below it.
  func subtree(of node: Int) -> [Int] {
    var found = [node]
    var next = 0
    while next < found.count {
      found += nodes[found[next]].children
      next += 1
    }
    return found
  }

  func leaves(of namespace: Int) -> [Int] {
    nodes.indices.filter { nodes[$0].namespace == namespace && nodes[$0].children.isEmpty }
  }

  /// All regions, one after the other.
  func payload(of node: Int) -> [UInt8] {
    let count = payloadByteCounts[nodes[node].namespace]
    // Odd steps: no two payloads agree at any sector.
    let start = (node * 4_099) % (pool.count - count - 8)
    var bytes = Array(pool[start..<start + count])
    withUnsafeBytes(of: UInt64(node).littleEndian) { stamp in
      for index in 0..<min(8, count) { bytes[index] = stamp[index] }
    }
    return bytes
  }
}
