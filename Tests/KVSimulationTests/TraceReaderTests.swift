import Foundation
import KVSimulation
import KVTestSupport
import Testing

@Suite struct TraceReaderTests {
  private let folder: TemporaryFolder
  init() throws { folder = try TemporaryFolder() }

  private func requests(
    _ lines: [String],
    tokensPerBlock: Int = 512,
    skipsBadLines: Bool = false
  ) throws -> [TraceRequest] {
    try requests(
      of: traceFile(lines, in: folder),
      tokensPerBlock: tokensPerBlock,
      skipsBadLines: skipsBadLines
    ).requests
  }

  private func requests(
    of file: String,
    tokensPerBlock: Int = 512,
    skipsBadLines: Bool = false
  ) throws -> (requests: [TraceRequest], badLineCount: Int) {
    let reader = try TraceReader(
      file: file,
      tokensPerBlock: tokensPerBlock,
      skipsBadLines: skipsBadLines
    )
    var all: [TraceRequest] = []
    var request = TraceRequest()
    while try reader.next(into: &request) { all.append(request) }
    return (all, reader.badLineCount)
  }

  private let good =
    #"{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [1, 2]}"#

  @Test func mooncake() throws {
    let request = try #require(requests([good]).first)
    #expect(request.timestampMilliseconds == 5)
    #expect(request.inputTokenCount == 600)
    #expect(request.outputTokenCount == 7)
    #expect(request.tokensPerBlock == 512)
    #expect(request.blockIDs == [1, 2])
    #expect(request.fullBlockCount == 1)
    #expect(request.session == nil)
  }

  @Test func sessionFieldsAndUnknownOnes() throws {
    let line = #"""
      {"x":{"a":[1,"}\"",null,{"b":-1.5e3}],"c":true},"session":3,"turn":2,"block_size":16,"stop":"",
      """#
      + #""timestamp":1000.7,"input_length":16,"hash_ids":[18446744073709551615],"source":"t\\"}"#
    let request = try #require(requests([line.replacingOccurrences(of: "\n", with: "")]).first)
    #expect(request.session == 3)
    #expect(request.turn == 2)
    #expect(request.tokensPerBlock == 16)
    #expect(request.timestampMilliseconds == 1000)
    #expect(request.outputTokenCount == 0)
    #expect(request.blockIDs == [.max])
  }

  @Test(arguments: [
    (600, 512, 0), (600, 512, 3), (1000, 512, 63), (1024, 512, 3), (1024, 512, 1), (0, 16, 1),
  ])
  func idsThatDoNotFitTheirTokens(tokenCount: Int, blockSize: Int, count: Int) throws {
    let ids = (0..<count).map(String.init).joined(separator: ",")
    let line = #"{"timestamp":0,"input_length":\#(tokenCount),"hash_ids":[\#(ids)]}"#
    let error = #expect(throws: TraceError.self) {
      _ = try requests([line], tokensPerBlock: blockSize)
    }
    let fault = TraceLineFault.idCount(count, tokenCount: tokenCount, tokensPerBlock: blockSize)
    guard case .badLine(_, 1, fault) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(fault.description.contains("--block-size"))
  }

  @Test func idsOfFullBlocksOrOfAll() throws {
    let all = try requests(
      [
        #"{"timestamp":0,"input_length":600,"hash_ids":[1]}"#,
        #"{"timestamp":0,"input_length":600,"hash_ids":[1,2]}"#,
        #"{"timestamp":0,"input_length":1024,"hash_ids":[1,2]}"#,
        #"{"timestamp":0,"input_length":100,"hash_ids":[]}"#,
      ]
    )
    #expect(all.map(\.blockIDs.count) == [1, 2, 2, 0])
  }

  @Test(arguments: [[], ["", "  "]]) func aTraceWithoutARequest(lines: [String]) throws {
    #expect(throws: TraceError.empty(file: folder.path + "/trace.jsonl")) {
      _ = try requests(lines)
    }
  }

  @Test func gzipAndByteOrderMarks() throws {
    let file = folder.path + "/trace.gz"
    try Data([0x1F, 0x8B, 8, 0, 0, 0, 0, 0]).write(to: URL(fileURLWithPath: file))
    let error = #expect(throws: TraceError.gzip(file: file)) { _ = try requests(of: file) }
    #expect(error?.description.contains("gunzip -c") == true)
    let marked = try #require(traceFile(["\u{FEFF}" + good], in: folder) as String?)
    #expect(throws: TraceError.badLine(file: marked, line: 1, fault: .byteOrderMark)) {
      _ = try requests(of: marked)
    }
  }

  @Test func tokenIDsAreCutIntoChainedBlocks() throws {
    let all = try requests(
      [
        #"{"timestamp":0,"token_ids":[1,2,3,4,5]}"#,
        #"{"timestamp":0,"token_ids":[1,2,3,4]}"#,
        #"{"timestamp":0,"token_ids":[9,9,3,4]}"#,
      ],
      tokensPerBlock: 2
    )
    #expect(all.map(\.inputTokenCount) == [5, 4, 4])
    #expect(all.map(\.blockIDs.count) == [2, 2, 2])
    #expect(all[0].blockIDs == all[1].blockIDs)
    // The same tokens behind another block are another block.
    #expect(all[0].blockIDs[1] != all[2].blockIDs[1])
  }

  @Test(arguments: [
    (#"{"timestamp":0,"input_length":1,"hash_ids":[1]"#, TraceLineFault.notJSON(column: 47)),
    (#"[1]"#, .notJSON(column: 1)),
    (#"{"timestamp":0,"input_length":1,"hash_ids":[1]} x"#, .notJSON(column: 49)),
    (#"{"timestamp":0,"input_length":1}"#, .missing("hash_ids")),
    (#"{"timestamp":0,"hash_ids":[1]}"#, .missing("input_length")),
    (#"{"input_length":1,"hash_ids":[1]}"#, .missing("timestamp")),
    (#"{"timestamp":"a","input_length":1,"hash_ids":[1]}"#, .notANumber("timestamp")),
    (#"{"timestamp":0,"input_length":1,"hash_ids":[1.5]}"#, .notANumber("hash_ids")),
    (#"{"timestamp":0,"input_length":1,"hash_ids":[-1]}"#, .notANumber("hash_ids")),
    (#"{"timestamp":0,"input_length":-1,"hash_ids":[1]}"#, .outOfRange("input_length")),
    (#"{"timestamp":-1,"input_length":1,"hash_ids":[1]}"#, .outOfRange("timestamp")),
    (
      #"{"timestamp":0,"input_length":1,"hash_ids":[18446744073709551616]}"#,
      .outOfRange("hash_ids")
    ),
    (#"{"timestamp":0,"token_ids":[4294967296]}"#, .outOfRange("token_ids")),
    (#"{"timestamp":0,"block_size":0,"input_length":1,"hash_ids":[1]}"#, .outOfRange("block_size")),
  ])
  func badLinesAreNamed(line: String, fault: TraceLineFault) throws {
    let good = #"{"timestamp":5,"input_length":2,"hash_ids":[1,2]}"#
    let file = try traceFile([good, "", line, good], in: folder)
    #expect(throws: TraceError.badLine(file: file, line: 3, fault: fault)) {
      try requests(of: file, tokensPerBlock: 1)
    }
    let read = try requests(of: file, tokensPerBlock: 1, skipsBadLines: true)
    #expect(read.requests.count == 2)
    #expect(read.badLineCount == 1)
  }

  /// Lines longer than the buffer, and none at the end.
  @Test func longLines() throws {
    let ids = (0..<400_000).map(String.init).joined(separator: ", ")
    let line = #"{"timestamp":1,"input_length":204800000,"hash_ids":[\#(ids)]}"#
    let file = folder.path + "/long.jsonl"
    try "\(line)\n\(line)".write(toFile: file, atomically: false, encoding: .utf8)
    let read = try requests(of: file).requests
    #expect(read.map(\.blockIDs.count) == [400_000, 400_000])
    #expect(read[0].blockIDs.last == 399_999)
  }

  @Test func compressedTracesAreTheSame() throws {
    let plain = try traceFile(Array(repeating: good, count: 50_000), in: folder)
    try compress(plain)
    #expect(try requests(of: plain + ".zst").requests == requests(of: plain).requests)
    // Two frames, one after the other.
    let bytes = try #require(FileManager.default.contents(atPath: plain + ".zst"))
    try (bytes + bytes).write(to: URL(filePath: plain + ".twice"))
    #expect(try requests(of: plain + ".twice").requests.count == 100_000)
    try bytes.prefix(bytes.count / 2).write(to: URL(filePath: plain + ".cut"))
    #expect(throws: TraceError.self) { try requests(of: plain + ".cut") }
  }

  private func compress(_ path: String) throws {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["zstd", "-q", path]
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }

  @Test func noFileIsAnError() {
    #expect(throws: TraceError.cannotOpen(file: "/nowhere/x", errno: 2)) {
      try requests(of: "/nowhere/x")
    }
  }
}
