import KVCore
import KVIndex

/// A block of the tests: few symbols, so that random chains share prefixes and fork often.
///
/// Symbols 2 and 3 have the same words and differ in their extra bytes.
typealias Symbol = UInt8

let symbolCount: Symbol = 5
let testWordsPerBlock = 3

func words(of symbol: Symbol) -> [UInt32] {
  let base = UInt32(symbol == 3 ? 2 : symbol)
  return [7, 7, base]
}

func extra(of symbol: Symbol) -> [UInt8] { symbol == 3 ? [1, 2, 3] : [] }

/// A chain in a namespace, from the first block on.
struct Chain: Hashable, Comparable, CustomStringConvertible {
  var namespace: NamespaceID
  var symbols: [Symbol]

  var parent: Chain { Chain(namespace: namespace, symbols: symbols.dropLast()) }
  func child(_ symbol: Symbol) -> Chain {
    Chain(namespace: namespace, symbols: symbols + [symbol])
  }
  func isPrefix(of other: Chain) -> Bool {
    namespace == other.namespace && other.symbols.starts(with: symbols)
  }
  static func < (a: Chain, b: Chain) -> Bool {
    (a.namespace.rawValue, a.symbols.count) < (b.namespace.rawValue, b.symbols.count)
      || (a.namespace == b.namespace && a.symbols.count == b.symbols.count
        && a.symbols.lexicographicallyPrecedes(b.symbols))
  }
  var description: String { "ns\(namespace.rawValue)\(symbols)" }
}

/// What the index should hold, as a dictionary of whole chains.
struct IndexModel {
  struct Block {
    var keyLow: UInt64
    var place: BlockPosition?
    var hostSlot: Int32 = -1
    var isHeld: Bool { place == nil || hostSlot >= 0 }
  }

  var blocks: [Chain: Block] = [:]

  func matchedCount(_ chain: Chain) -> Int {
    var count = 0
    var prefix = Chain(namespace: chain.namespace, symbols: [])
    for symbol in chain.symbols {
      prefix = prefix.child(symbol)
      if blocks[prefix] == nil { break }
      count += 1
    }
    return count
  }

  func chain(at place: BlockPosition, in namespace: NamespaceID) -> Chain? {
    blocks.first { $0.key.namespace == namespace && $0.value.place == place }?.key
  }

  func subtree(of chain: Chain) -> Set<Chain> {
    Set(blocks.keys.filter { chain.isPrefix(of: $0) })
  }
}

extension PrefixIndex {
  /// `match` on arrays, for tests.
  func match(
    _ chain: Chain,
    from first: Int = 0,
    after start: IndexLocation = .root,
    touch: Bool = true,
    segments: inout [IndexSegment]
  ) -> PrefixMatch {
    let symbols = Array(chain.symbols[first...])
    let flat = symbols.flatMap { words(of: $0) }
    // One lasting buffer for all the extra bytes, which the accessor lends.
    let extras = symbols.map { extra(of: $0) }
    let joined = extras.flatMap { $0 }
    return unsafe joined.withUnsafeBytes { bytes in
      unsafe flat.withUnsafeBufferPointer { buffer in
        var sentinel: UInt32 = 0
        return unsafe withUnsafePointer(to: &sentinel) { none in
          unsafe match(
            chain.namespace,
            words: buffer.baseAddress ?? none,
            blockCount: symbols.count,
            extra: joined.isEmpty
              ? nil
              : { index in
                let offset = extras[..<index].reduce(0) { $0 + $1.count }
                return unsafe UnsafeRawBufferPointer(
                  rebasing: bytes[offset..<offset + extras[index].count]
                )
              },
            after: start,
            touch: touch,
            segments: &segments
          )
        }
      }
    }
  }

  /// `append` on arrays, for tests.
  func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: [UInt32],
    extra: [UInt8] = [],
    entry: IndexEntry,
    at place: BlockPosition? = nil
  ) -> IndexAppendResult? {
    unsafe extra.withUnsafeBytes { bytes in
      unsafe words.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return nil }
        return unsafe append(
          namespace,
          after: parent,
          words: base,
          extra: bytes,
          entry: entry,
          at: place
        )
      }
    }
  }
}
