import Glibc
import KVCodec
import KVCore

/// Bytes of one block, as they are in the file.
///
/// Unsafe: owns its memory, which is written once, by `init`.
@safe final class BlockBytes {
  let bytes: UnsafeRawBufferPointer

  init(_ data: [UInt8]) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: data.count, alignment: 64)
    unsafe memory.copyBytes(from: data)
    unsafe bytes = UnsafeRawBufferPointer(memory)
  }

  deinit { unsafe bytes.deallocate() }

  var byteCount: Int { unsafe bytes.count }
}

/// Files of one element type.
struct CodecInput {
  let elementType: ElementType
  /// What was asked for, for messages.
  let path: String
  private let files: [String]

  /// What to measure: the files of one type, or a set for each type that the folder has a subfolder for.
  static func find(_ input: String?, _ elementType: ElementType?) throws -> [CodecInput] {
    let path = input ?? defaultFolder
    let isFolder = try folderOrFile(path, isDefault: input == nil)
    if !isFolder {
      guard let elementType else {
        throw CommandFailure(
          "\(path): of which type are the elements? Say --element-type fp16, or another"
        )
      }
      return [CodecInput(elementType: elementType, path: path, files: [path])]
    }
    var sets: [CodecInput] = []
    for type in ElementType.allCases where elementType == nil || type == elementType {
      let files = try list("\(path)/\(type.name)")
      if !files.isEmpty {
        sets.append(CodecInput(elementType: type, path: "\(path)/\(type.name)", files: files))
      }
    }
    if sets.isEmpty, let elementType {
      let files = try list(path)
      if !files.isEmpty {
        sets = [CodecInput(elementType: elementType, path: path, files: files)]
      }
    }
    guard sets.isEmpty else { return sets }
    if elementType == nil {
      throw CommandFailure(
        "\(path) has no subfolder named by an element type, such as fp16; say --element-type, or make KV data: \(howToMake)"
      )
    }
    throw CommandFailure("\(path) has no files; make KV data: \(howToMake)")
  }

  /// The blocks, at most `total` bytes, taken evenly.
  func load(total: Int, blockBytes: Int) throws -> [BlockBytes] {
    let sizes = try files.map { try Self.size($0) }
    let sum = sizes.reduce(0, +)
    let step = max(1, (sum + total - 1) / total)
    var blocks: [BlockBytes] = []
    var taken = 0
    for index in stride(from: 0, to: files.count, by: step) where taken < total {
      let descriptor = unsafe open(files[index], O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { throw CommandFailure("cannot read \(files[index])") }
      defer { close(descriptor) }
      while taken < total, let data = readSome(descriptor, byteCountMax: blockBytes), !data.isEmpty
      {
        blocks.append(BlockBytes(data))
        taken += data.count
      }
    }
    guard !blocks.isEmpty else { throw CommandFailure("\(path) has nothing but empty files") }
    return blocks
  }

  // MARK: - Files

  private static let howToMake =
    "Scripts/make-kv-data has a real model compute some, in a minute or two, into \(defaultFolder)"

  /// Where Scripts/make-kv-data puts it.
  private static var defaultFolder: String {
    cacheFolder() + "/kv-data"
  }

  private static func folderOrFile(_ path: String, isDefault: Bool) throws -> Bool {
    guard fileStatus(path) != nil else {
      throw CommandFailure(
        isDefault
          ? "there is no KV data to measure with yet: \(howToMake); or name some with --input"
          : "there is no \(path)"
      )
    }
    return isFolder(path)
  }

  /// The files in a folder in order; none when there is no such folder.
  private static func list(_ folder: String) throws -> [String] {
    folderEntries(folder).sorted().map { "\(folder)/\($0)" }.filter {
      fileStatus($0) != nil && !isFolder($0)
    }
  }

  private static func size(_ path: String) throws -> Int {
    guard let status = fileStatus(path) else { throw CommandFailure("cannot read \(path)") }
    return Int(status.st_size)
  }
}
