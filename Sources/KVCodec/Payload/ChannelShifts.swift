internal import Glibc

/// Finds for each channel the shift that makes its symbols most like those of the others.
///
/// A channel of K or V keeps its magnitude, and in K its sign too, over many tokens. Seen from its own centre
/// every channel has nearly the same distribution, so one Huffman table serves all of them. The median is the first guess;
/// then each channel takes the shift near it under which its symbols cost the fewest bits of a code made for all.
///
/// Unsafe: plain pointers into memory that was reserved for the sizes at hand, for speed.
@safe struct ChannelShifts {
  private let unitBits: Int
  private let binCount: Int
  /// Of each channel's bins; zero between two uses.
  private let counts = ScratchMemory()
  /// The bins that occur, channel by channel: bin << 16 | count.
  private let entries = ScratchMemory()
  /// Where each channel's entries begin, and where the last one's end.
  private let offsets = ScratchMemory()
  private var shared: [Int]
  private var total: [Int]
  private var plain: [Int]
  private var table: [Int]

  init(_ type: ElementType) {
    unitBits = type.shiftUnitBits
    binCount = 256 >> unitBits
    shared = Array(repeating: 0, count: binCount)
    total = shared
    plain = shared
    table = shared
  }

  /// Bits that the shifts are thought to save, what they cost themselves counted, over all segments so far.
  var savedBitCount: Double { Self.bitCount(plain) - Self.bitCount(total) - Self.bitCount(table) }

  /// Chooses the shifts of one segment, in units.
  ///
  /// Of more than 65,535 rows the counts overflow, and the choice is a bad one.
  mutating func choose(
    _ symbols: UnsafePointer<UInt8>,
    count: Int,
    channelCount: Int,
    _ shifts: UnsafeMutablePointer<UInt8>
  ) {
    unsafe collect(symbols, count: count, channelCount: channelCount)
    guard
      let entries = unsafe entries.bytes.baseAddress?.assumingMemoryBound(to: UInt32.self),
      let offsets = unsafe offsets.bytes.baseAddress?.assumingMemoryBound(to: Int32.self)
    else { return }
    for bin in 0..<binCount { shared[bin] = 0 }
    for channel in 0..<channelCount {
      let range = unsafe Int(offsets[channel])..<Int(offsets[channel + 1])
      var sum = 0
      for index in range { unsafe sum += Int(entries[index] & 0xFFFF) }
      var median = 0
      var below = 0
      for index in range where 2 * below < sum {
        unsafe median = Int(entries[index] >> 16)
        unsafe below += Int(entries[index] & 0xFFFF)
      }
      unsafe shifts[channel] = UInt8(truncatingIfNeeded: median)
      for index in range {
        let (bin, count) = unsafe Self.parts(entries[index])
        plain[bin] += count
        shared[(bin - median) & (binCount - 1)] += count
      }
    }
    for _ in 0..<2 {
      unsafe refine(entries, offsets, channelCount: channelCount, shifts)
    }
    for channel in 0..<channelCount { unsafe table[Int(shifts[channel])] += 1 }
    for bin in 0..<binCount { total[bin] += shared[bin] }
  }

  /// Moves each channel's shift to the cheapest near it, under the code that `shared` asks for; makes `shared` anew.
  private mutating func refine(
    _ entries: UnsafePointer<UInt32>,
    _ offsets: UnsafePointer<Int32>,
    channelCount: Int,
    _ shifts: UnsafeMutablePointer<UInt8>
  ) {
    let bins = binCount
    // Twice side by side, so that a shifted bin needs no wrapping around.
    let costs = Self.costs(shared)
    var next = [Int](repeating: 0, count: bins)
    unsafe costs.span.withUnsafeBufferPointer { costs in
      guard let costs = costs.baseAddress else { return }
      for channel in 0..<channelCount {
        let range = unsafe Int(offsets[channel])..<Int(offsets[channel + 1])
        var best = (cost: Int.max, shift: 0)
        for step in -2...2 {
          let shift = unsafe (Int(shifts[channel]) + step) & (bins - 1)
          let shifted = unsafe costs + (bins - shift)
          var cost = 0
          for index in range {
            let (bin, count) = unsafe Self.parts(entries[index])
            unsafe cost &+= count &* Int(shifted[bin])
          }
          if cost < best.cost { best = (cost, shift) }
        }
        unsafe shifts[channel] = UInt8(truncatingIfNeeded: best.shift)
        for index in range {
          let (bin, count) = unsafe Self.parts(entries[index])
          next[(bin - best.shift) & (bins - 1)] += count
        }
      }
    }
    shared = next
  }

  /// Counts the symbols' bins, and lists those that occur.
  private func collect(_ symbols: UnsafePointer<UInt8>, count: Int, channelCount: Int) {
    let bins = binCount
    let size = channelCount * bins * MemoryLayout<UInt16>.size
    if unsafe counts.bytes.count < size {
      unsafe counts.reserve(size).initializeMemory(as: UInt8.self, repeating: 0)
    }
    let entryBytes = unsafe entries.reserve(min(count, channelCount * bins) * 4 + 4)
    let offsetBytes = unsafe offsets.reserve((channelCount + 1) * 4)
    guard let counts = unsafe counts.bytes.baseAddress?.assumingMemoryBound(to: UInt16.self),
      let entries = unsafe entryBytes.baseAddress?.assumingMemoryBound(to: UInt32.self),
      let offsets = unsafe offsetBytes.baseAddress?.assumingMemoryBound(to: Int32.self)
    else { return }
    let bits = UInt8(unitBits)
    var start = 0
    while start < count {
      for channel in 0..<min(channelCount, count - start) {
        unsafe counts[channel &* bins &+ Int(symbols[start &+ channel] >> bits)] &+= 1
      }
      start += channelCount
    }
    var end = 0
    for channel in 0..<channelCount {
      unsafe offsets[channel] = Int32(truncatingIfNeeded: end)
      // Four bins at a time: most do not occur.
      for bin in stride(from: 0, to: bins, by: 4) {
        let four = unsafe UnsafeMutableRawPointer(counts + channel * bins + bin)
        if unsafe four.loadUnaligned(as: UInt64.self) == 0 { continue }
        for index in bin..<bin + 4 {
          let found = unsafe counts[channel * bins + index]
          if found == 0 { continue }
          unsafe entries[end] = UInt32(index) << 16 | UInt32(found)
          end += 1
        }
        unsafe four.storeBytes(of: 0, as: UInt64.self)
      }
    }
    unsafe offsets[channelCount] = Int32(truncatingIfNeeded: end)
  }

  @inline(__always)
  private static func parts(_ entry: UInt32) -> (bin: Int, count: Int) {
    (Int(entry >> 16), Int(entry & 0xFFFF))
  }

  /// 1/256 bits of each bin in a code for these counts, twice; half a count more for each, so that none is infinite.
  private static func costs(_ counts: [Int]) -> [Int32] {
    let sum = Double(counts.reduce(0, +)) + 0.5 * Double(counts.count)
    let once = counts.map { Int32((256 * log2(sum / (Double($0) + 0.5))).rounded()) }
    return once + once
  }

  /// Bits that an ideal code for these counts needs.
  private static func bitCount(_ counts: [Int]) -> Double {
    let sum = Double(counts.reduce(0, +))
    return counts.reduce(0) { $1 == 0 ? $0 : $0 + Double($1) * log2(sum / Double($1)) }
  }
}
