/// Cuts elements into a symbol each, which is worth entropy coding, and the rest, which is not, and puts them together.
///
/// The symbol holds the exponent in its topmost bits, so that subtracting a channel's shift moves
/// exponents and leaves the bits below alone:
/// ```
/// type      element                    symbol           rest
/// fp16      s eeeee mmmmmmmmmm         eeeee s mm       mmmmmmmm
/// bf16      s eeeeeeee mmmmmmm         eeeeeeee         mmmmmmm s
/// fp32      s eeeeeeee 23 × m          eeeeeeee         23 × m, s: three planes, lowest byte first
/// fp8-e4m3  s eeee mmm                 eeee s mmm       –
/// fp8-e5m2  s eeeee mm                 eeeee s mm       –
/// int8      two's complement           offset binary    –
/// ```
/// Unsafe: plain pointers, so that the compiler makes vector code of the loops; the callers check all bounds first.
enum ElementPlanes {
  /// Bytes of the rest of an element.
  static func restByteCount(_ type: ElementType) -> Int { type.byteCount - 1 }

  /// Writes the symbols and the rest of `count` elements.
  static func split(
    _ type: ElementType,
    _ elements: UnsafeRawPointer,
    count: Int,
    symbols: UnsafeMutablePointer<UInt8>,
    rest: UnsafeMutablePointer<UInt8>
  ) {
    switch type {
    case .fp16:
      for i in 0..<count {
        let word = unsafe load16(elements, i)
        unsafe symbols[i] = UInt8(
          truncatingIfNeeded: (word >> 7 & 0xF8) | (word >> 13 & 4) | (word >> 8 & 3)
        )
        unsafe rest[i] = UInt8(truncatingIfNeeded: word)
      }
    case .bf16:
      for i in 0..<count {
        let word = unsafe load16(elements, i)
        unsafe symbols[i] = UInt8(truncatingIfNeeded: word >> 7)
        unsafe rest[i] = UInt8(truncatingIfNeeded: word << 1 | word >> 15)
      }
    case .fp32:
      for i in 0..<count {
        let word = unsafe UInt32(
          littleEndian: elements.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)
        )
        let turned = word << 1 | word >> 31
        unsafe symbols[i] = UInt8(truncatingIfNeeded: turned >> 24)
        unsafe rest[i] = UInt8(truncatingIfNeeded: turned)
        unsafe rest[count + i] = UInt8(truncatingIfNeeded: turned >> 8)
        unsafe rest[2 * count + i] = UInt8(truncatingIfNeeded: turned >> 16)
      }
    case .fp8E4M3:
      for i in 0..<count {
        let byte = unsafe load8(elements, i)
        unsafe symbols[i] = (byte & 0x78) << 1 | (byte >> 4 & 8) | (byte & 7)
      }
    case .fp8E5M2:
      for i in 0..<count {
        let byte = unsafe load8(elements, i)
        unsafe symbols[i] = (byte & 0x7C) << 1 | (byte >> 5 & 4) | (byte & 3)
      }
    case .int8, .q8_0:
      for i in 0..<count { unsafe symbols[i] = unsafe load8(elements, i) ^ 0x80 }
    case .opaque:
      for i in 0..<count { unsafe symbols[i] = unsafe load8(elements, i) }
    }
  }

  /// Puts `count` elements together; symbol i belongs to channel i, whose shift is added first.
  ///
  /// `planeByteCount` is the distance of fp32's planes.
  @inline(__always)
  static func join(
    _ type: ElementType,
    symbols: UnsafePointer<UInt8>,
    shifts: UnsafePointer<UInt8>,
    rest: UnsafePointer<UInt8>,
    planeByteCount: Int,
    count: Int,
    _ elements: UnsafeMutableRawPointer
  ) {
    switch type {
    case .fp16:
      for i in 0..<count {
        let symbol = unsafe UInt16(symbols[i] &+ shifts[i])
        let high = (symbol & 0xF8) << 7 | (symbol & 4) << 13 | (symbol & 3) << 8
        unsafe store16(elements, i, high | UInt16(rest[i]))
      }
    case .bf16:
      for i in 0..<count {
        let symbol = unsafe UInt16(symbols[i] &+ shifts[i])
        let low = unsafe UInt16(rest[i])
        unsafe store16(elements, i, symbol << 7 | low >> 1 | low << 15)
      }
    case .fp32:
      for i in 0..<count {
        let symbol = unsafe UInt32(symbols[i] &+ shifts[i])
        let low =
          unsafe UInt32(rest[i]) | UInt32(rest[planeByteCount + i]) << 8
          | UInt32(rest[2 * planeByteCount + i]) << 16
        let turned = symbol << 24 | low
        unsafe elements.storeBytes(
          of: (turned >> 1 | turned << 31).littleEndian,
          toByteOffset: 4 * i,
          as: UInt32.self
        )
      }
    case .fp8E4M3:
      for i in 0..<count {
        let symbol = unsafe symbols[i] &+ shifts[i]
        unsafe store8(elements, i, (symbol >> 1 & 0x78) | (symbol & 8) << 4 | (symbol & 7))
      }
    case .fp8E5M2:
      for i in 0..<count {
        let symbol = unsafe symbols[i] &+ shifts[i]
        unsafe store8(elements, i, (symbol >> 1 & 0x7C) | (symbol & 4) << 5 | (symbol & 3))
      }
    case .int8, .q8_0:
      for i in 0..<count { unsafe store8(elements, i, (symbols[i] &+ shifts[i]) ^ 0x80) }
    case .opaque:
      for i in 0..<count { unsafe store8(elements, i, symbols[i] &+ shifts[i]) }
    }
  }

  @inline(__always)
  private static func load8(_ bytes: UnsafeRawPointer, _ index: Int) -> UInt8 {
    unsafe bytes.load(fromByteOffset: index, as: UInt8.self)
  }

  @inline(__always)
  private static func load16(_ bytes: UnsafeRawPointer, _ index: Int) -> UInt16 {
    unsafe UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self))
  }

  @inline(__always)
  private static func store8(_ bytes: UnsafeMutableRawPointer, _ index: Int, _ value: UInt8) {
    unsafe bytes.storeBytes(of: value, toByteOffset: index, as: UInt8.self)
  }

  @inline(__always)
  private static func store16(_ bytes: UnsafeMutableRawPointer, _ index: Int, _ value: UInt16) {
    unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: 2 * index, as: UInt16.self)
  }
}
