import Foundation
import KVRequests
import Testing

/// The reader of JSON against Foundation's, and against what is no JSON.
@Suite struct JSONDocumentTests {
  @Test func whatIsNoJSONIsRefusedWithItsPlace() {
    let cases: [(String, JSONFault.Reason)] = [
      ("", .endsEarly), ("{", .endsEarly), ("{\"a\"", .endsEarly), ("{\"a\":", .endsEarly),
      ("[1,", .endsEarly), ("\"abc", .endsEarly), ("\"\\u00", .endsEarly), ("{\"a\":1", .endsEarly),
      ("{a:1}", .syntax), ("[1 2]", .syntax), ("[01]", .syntax), ("1.", .endsEarly),
      ("[1.]", .syntax), ("+1", .endsEarly), ("\"\\x\"", .syntax), ("\"a\nb\"", .syntax),
      ("{} {}", .syntax), ("[1,]", .syntax), ("{\"a\":1,}", .syntax), ("tru", .endsEarly),
      (String(repeating: "[", count: 1_000), .tooDeep),
    ]
    for (text, reason) in cases {
      #expect(fault(Array(text.utf8))?.reason == reason, "\(text.prefix(40))")
    }
    let notUTF8: [[UInt8]] = [
      [0x22, 0xFF, 0x22], [0x22, 0xC3, 0x28, 0x22], [0x22, 0xC0, 0x80, 0x22],
      [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xF4, 0x90, 0x80, 0x80, 0x22],
    ]
    for bytes in notUTF8 { #expect(fault(bytes)?.reason == .notUTF8) }
    #expect(fault(Array("{\"a\": nul}".utf8))?.offset == 6)
  }

  private func fault(_ bytes: [UInt8]) -> JSONFault? {
    do throws(JSONFault) {
      _ = try JSONDocument(bytes)
      return nil
    } catch { return error }
  }

  /// Random bytes, and JSON with random bytes in it: accepted exactly where Foundation accepts, but for what is named.
  @Test(arguments: [UInt64(1), 2, 3])
  func agreesWithFoundation(_ seed: UInt64) {
    var state = seed
    func random(_ below: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % below
    }
    let sample = Array(#"{"a": [1, -2.5e3, "x\n\u00e9 y"], "b": {"c": null, "d": true}}"#.utf8)
    for _ in 0..<4_000 {
      var bytes = sample
      for _ in 0...random(3) {
        let at = random(bytes.count)
        switch random(3) {
        case 0: bytes[at] = Array("{}[],:\"\\ 0189.eEtfn-".utf8)[random(20)]
        case 1: bytes.remove(at: at)
        default: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + random(9))], at: at)
        }
      }
      let theirs = try? JSONSerialization.jsonObject(
        with: Data(bytes),
        options: [.fragmentsAllowed]
      )
      let ours = fault(bytes) == nil
      // Foundation takes a comma before a closing brace, and refuses numbers beyond a double.
      if ours != (theirs != nil) {
        let text = String(decoding: bytes, as: UTF8.self)
        let isKnown = ours ? text.contains("e") : text.contains(",}")
        #expect(isKnown, "seed \(seed), ours \(ours): \(text)")
      }
    }
  }
}
