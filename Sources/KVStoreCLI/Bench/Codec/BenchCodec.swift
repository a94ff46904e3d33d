import ArgumentParser
import KVCodec
import KVCore

/// `kvstore bench codec`: how small real KV becomes, and how fast it comes back.
struct BenchCodec: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "codec",
    abstract: "Compression ratio and speed of the lossless codec on real KV.",
    discussion: """
      Beside zstd at three levels and lz4 on the bytes as they are. One thread, in its processor time. Each file is a block's \
      payload; what a codec makes of it is decoded and compared, byte by byte, before it is timed. \
      Random bytes or those of a random model say nothing: use KV that a trained model computed. \
      Scripts/make-kv-data makes some, in a folder for each element type, where this command looks for it.

      Element types: \(ElementType.allCases.map(\.name).joined(separator: ", ")).

      EXAMPLES
        kvstore bench codec
        kvstore bench codec --input dump.bin --element-type bf16 --row-elements 1024
      """
  )

  @Option(
    help: """
      A file or folder of raw KV. Without --element-type, a folder whose subfolders are named by \
      element type. (default: what Scripts/make-kv-data has made)
      """,
    completion: .file()
  )
  var input: String?

  @Option(help: "Type of the elements, for example fp16.")
  var elementType: String?

  @Option(
    help: "Elements of a token's row in one layer's K or V: KV heads × head size. 0 = find out."
  )
  var rowElements = 0

  @Option(help: "Bytes of a tensor (one layer's K or V of a block). 0 = find out.")
  var tensorBytes = 0

  @Option(help: "The most bytes of each element type; files are taken evenly.")
  var total = ByteSize(32 << 20)

  @Option(help: "Files longer than this are cut.")
  var blockBytes = ByteSize(4 << 20)

  @Option(help: "Runs of each measurement but zstd -19; the median is shown.")
  var runs = 5

  @Flag(help: "Print an object a line, for programs.")
  var json = false

  func validate() throws {
    if let elementType, ElementType(name: elementType) == nil {
      throw ValidationError("--element-type \(elementType) is not one of those that --help lists.")
    }
    guard (0...1 << 20).contains(rowElements) else {
      throw ValidationError("--row-elements must be 0 to 1048576.")
    }
    guard (0...1 << 30).contains(tensorBytes) else {
      throw ValidationError("--tensor-bytes must be 0 to 1073741824.")
    }
    guard (1...1000).contains(runs) else { throw ValidationError("--runs must be 1 to 1000.") }
    guard (4096...1 << 30).contains(blockBytes.byteCount), total.byteCount <= 8 << 30 else {
      throw ValidationError("--block-bytes must be 4KiB to 1GiB, --total at most 8GiB.")
    }
  }

  func run() throws {
    let sets = try CodecInput.find(input, elementType.flatMap { ElementType(name: $0) })
    if !json { print(Environment.shortLines.joined(separator: "\n") + "\n") }
    for set in sets {
      let blocks = try set.load(total: total.byteCount, blockBytes: blockBytes.byteCount)
      try measure(set, blocks)
    }
  }

  private func measure(_ set: CodecInput, _ blocks: [BlockBytes]) throws {
    let type = set.elementType
    var format = unsafe PayloadFormat.detect(blocks[0].bytes, type)
    if rowElements > 0 {
      format = PayloadFormat(
        elementType: type,
        rowByteCount: type.rowByteCount(elementCount: rowElements)
      )
    }
    if tensorBytes > 0 { format.tensorByteCount = tensorBytes }
    let rawBytes = blocks.reduce(0) { $0 + $1.byteCount }
    if !json {
      print(
        """
        \(type.name): \(counted(blocks.count, "block")), \(byteText(rawBytes)) of \(set.path)
          row \(format.rowByteCount) bytes, tensor \(format.tensorByteCount) bytes
        """
      )
    }
    var table = TextTable([
      ("  codec", .left), ("ratio", .right), ("encode GB/s", .right), ("decode GB/s", .right),
      ("largest block ÷ raw", .right),
    ])
    let progress = ProgressLine()
    for codec in try codecs(format) {
      progress.show("\(type.name): \(codec.name)")
      let row = try CodecTiming(codec, blocks, runs: codec.isSlow ? 1 : runs).row(type)
      progress.clear()
      if json {
        print(try jsonText(row, isPretty: false))
      } else {
        table.append([
          "  " + row.codec, decimalText(row.compressionRatio, digits: 4),
          decimalText(row.encodeBytesPerSecond / 1e9, digits: 3),
          decimalText(row.decodeBytesPerSecond / 1e9, digits: 3),
          decimalText(row.largestBlockRatio, digits: 4),
        ])
      }
    }
    if !json { print(table.lines().joined(separator: "\n") + "\n") }
  }

  private func codecs(_ format: PayloadFormat) throws -> [any BlockCodec] {
    var codecs: [any BlockCodec] = [try StoreCodec(format)]
    for level in [1, 3, 19] { codecs.append(try PlainZstd(level: level)) }
    if let lz4 = LZ4() {
      codecs.append(lz4)
    } else {
      writeError("kvstore: there is no liblz4.so.1 here (package liblz4-1), so lz4 is left out\n")
    }
    return codecs
  }
}
