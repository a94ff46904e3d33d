/// The texts of token ids, as a person reads them.
package struct TokenTexts {
  /// How a vocabulary writes what is no plain text.
  package enum Style: Sendable {
    /// Ġ or ▁ for a blank, Ċ for a line break: by looks, where the file does not say.
    case unknown
    /// Every byte as a printable character (GPT-2's byte-level BPE).
    case byteLevel
    /// ▁ for a blank, `<0x0A>` for a byte (SentencePiece).
    case sentencePiece
  }

  private let list: [[UInt8]]
  private let map: [UInt32: [UInt8]]
  private let style: Style

  /// Texts in the order of the ids.
  package init(list: [[UInt8]], style: Style = .unknown) {
    self.list = list
    map = [:]
    self.style = style
  }

  /// Texts by id.
  package init(map: [UInt32: [UInt8]], style: Style = .unknown) {
    list = []
    self.map = map
    self.style = style
  }

  /// Those of a model file.
  package init(_ vocabulary: GGUFVocabulary) {
    self.init(
      list: vocabulary.tokens,
      style: vocabulary.model == "gpt2" ? .byteLevel : .sentencePiece
    )
  }

  /// The tokens' texts one after the other, an unknown one as its number.
  ///
  /// A character may be spread over several tokens, so bytes are joined before they are read as UTF-8.
  package func text(of tokens: [UInt32]) -> String {
    var bytes: [UInt8] = []
    for token in tokens {
      if let text = list.indices.contains(Int(token)) ? list[Int(token)] : map[token] {
        append(text, to: &bytes)
      } else {
        bytes += Array("⟨\(token)⟩".utf8)
      }
    }
    var readable = ""
    for character in String(decoding: bytes, as: UTF8.self).unicodeScalars {
      switch character {
      case "\n": readable += "⏎"
      case "\t": readable += "⇥"
      default: readable.unicodeScalars.append(character)
      }
    }
    return readable
  }

  private func append(_ text: [UInt8], to bytes: inout [UInt8]) {
    switch style {
    case .byteLevel:
      for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
        if let byte = Self.bytesOfScalars[scalar.value] {
          bytes.append(byte)
        } else {
          bytes += Array(String(Character(scalar)).utf8)
        }
      }
    case .sentencePiece:
      if let byte = Self.byte(named: text) { bytes.append(byte) } else { appendLooks(text, &bytes) }
    case .unknown: appendLooks(text, &bytes)
    }
  }

  private func appendLooks(_ text: [UInt8], _ bytes: inout [UInt8]) {
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      switch scalar {
      case "▁": bytes.append(UInt8(ascii: " "))
      case "Ġ" where style == .unknown: bytes.append(UInt8(ascii: " "))
      case "Ċ" where style == .unknown: bytes.append(UInt8(ascii: "\n"))
      case "ĉ" where style == .unknown: bytes.append(UInt8(ascii: "\t"))
      default: bytes += Array(String(Character(scalar)).utf8)
      }
    }
  }

  /// `<0x0A>`.
  private static func byte(named text: [UInt8]) -> UInt8? {
    guard text.count == 6, text.starts(with: Array("<0x".utf8)), text[5] == UInt8(ascii: ">") else {
      return nil
    }
    return UInt8(String(decoding: text[3..<5], as: UTF8.self), radix: 16)
  }

  /// GPT-2's table: bytes that are printable stand for themselves, the others for the characters from 256 on, in order.
  private static let bytesOfScalars: [UInt32: UInt8] = {
    var table: [UInt32: UInt8] = [:]
    var next: UInt32 = 256
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 33...126, 161...172, 174...255: table[UInt32(byte)] = byte
      default:
        table[next] = byte
        next += 1
      }
    }
    return table
  }()
}
