import KVRequests

/// A log of requests from bytes: each line a record, and all of it one document.
enum RequestFuzzer {
  static func run(_ bytes: [UInt8]) {
    var analysis = RequestAnalysis()
    var byteCount = 0
    // Each pair that has changes is put right as well.
    analysis.review = { _, previous, next, changes in
      byteCount += next.mended(after: previous)?.count ?? 0
      return nil
    }
    for (index, line) in bytes.split(separator: 0x0A).enumerated() {
      do throws(JSONFault) {
        guard let logged = try LoggedRequest.inRecord(Array(line)) else { continue }
        analysis.add(logged, line: index + 1)
      } catch {
        // Refused.
      }
    }
    do throws(JSONFault) {
      byteCount += try LoggedRequest.inDocument(bytes) { analysis.add($1, line: $0) }
    } catch {
      // Refused.
    }
    let report = analysis.finish()
    FuzzTarget.keep(report.tokenCount ^ report.findings.count ^ byteCount)
  }

  /// Logs in which something was changed: places, characters and costs have to be worked out.
  static var seeds: [[UInt8]] {
    let tool =
      #"{"type":"function","function":{"name":"a","parameters":{"type":"object","n":1.0}}}"#
    let other =
      #"{"type":"function","function":{"name":"a","parameters":{"n":1,"type":"object"}}}"#
    func chat(_ system: String, _ tool: String, _ messages: String) -> String {
      #"{"model":"m","tools":[\#(tool)],"messages":[{"role":"system","content":"\#(system)"},\#(messages)]}"#
    }
    let first = #"{"role":"user","content":"find the fault in the parser, please"}"#
    let call =
      #"{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"a","arguments":"{\"p\": 1, \"q\": 2}"}}]}"#
    let swapped =
      #"{"role":"assistant","tool_calls":[{"id":"c2","function":{"name":"a","arguments":"{\"q\":2,\"p\":1}"}}]}"#
    let result = #"{"role":"tool","tool_call_id":"c1","content":"line one\nline two\nline three"}"#
    let last = #"{"role":"user","content":"thanks, now the caf\u00e9 \ud83d\ude00"}"#
    let logs = [
      [chat("it is 21:48", tool, first), chat("it is 21:49", tool, "\(first),\(call),\(result)")],
      [
        chat("a\\nb\\nc", tool, "\(first),\(call),\(result),\(last)"),
        chat("a\\nc\\nb", other, "\(first),\(swapped),\(result),\(last),\(first)"),
      ],
      [
        #"{"time":1,"request":{"prompt":"one\n\ntwo\n\nthree"}}"#,
        #"{"time":"2026-11-29T21:48:03Z","request":{"prompt":"one\n\nthree\n\nfour"}}"#,
      ],
      [
        #"{"model":"c","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"}]}]}"#
      ],
      [
        #"{"prompt":"<|im_start|>system\nbe brief\n\nnote: one<|im_end|>\n<|im_start|>user\nwhere?<|im_end|>\n"}"#,
        #"{"prompt":"<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nwhere?\n\nnote: one<|im_end|>\n"}"#,
      ],
      [
        #"{"prompt":"<s>[INST] <<SYS>>\nbe brief\n<</SYS>> where? [/INST] there</s>"}"#,
        #"{"prompt":"<｜begin▁of▁sentence｜>be brief<｜User｜>where?<｜Assistant｜>\n\nHuman: why?"}"#,
      ],
      [
        #"{"messages":[{"id":["x"],"kwargs":{"type":"human","content":"where is it?"}}]}"#,
        #"{"instructions":"it is 21:48","previous_response_id":"r","input":[{"role":"user","content":"…"}]}"#,
      ],
      [#"{"input":[{"type":"message","role":"user","content":"hi"}],"instructions":"be brief"}"#],
      [#"{"log":{"entries":[{"request":{"postData":{"text":"{\"prompt\":\"hi\"}"}}}]}}"#],
      [String(repeating: "[", count: 200)],
      ["{\"messages\":[{\"role\":\"user\",\"content\":\"\u{FFFD}\\ud800\"}]}"],
    ]
    return logs.map { Array($0.joined(separator: "\n").utf8) }
  }
}
