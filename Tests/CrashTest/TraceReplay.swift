import CIORecorder
import Foundation
import KVTestSupport

/// What becomes of the operations that were not durable when the machine stopped.
enum Loss: Equatable, CustomStringConvertible {
  /// The process died before the operation at the point: everything before it is there.
  case process
  /// The process died within it: the first half of a write, to the page, is there.
  case processWithin
  /// The power went: whatever no sync covers is gone.
  case everything
  /// The power went: each unsynced write is kept, dropped or torn by sectors of 512 bytes; of each folder's unsynced entries a random
  /// number of the first ones is there.
  case random(UInt64)

  var description: String {
    switch self {
    case .process: "died"
    case .processWithin: "died-within"
    case .everything: "lost"
    case .random(let seed): "torn-\(seed)"
    }
  }

  init?(_ text: String) {
    switch text {
    case "died": self = .process
    case "died-within": self = .processWithin
    case "lost": self = .everything
    default:
      guard text.hasPrefix("torn-"), let seed = UInt64(text.dropFirst(5)) else { return nil }
      self = .random(seed)
    }
  }
}

/// Walks along a trace and makes the folder that a crash at each of its points leaves.
///
/// Follows POSIX to the letter: bytes are durable once the file is synced, a name once its folder is.
/// Memory-mapped files (leases, LMDB's reader table) keep their size and lose their contents.
final class TraceReplay {
  private let trace: Trace
  /// Holds the durable bytes of each file, by number.
  private let base: String
  private(set) var point = 0
  /// Durable names; folders have file 0.
  private var names: [String: UInt32] = ["": 0]
  /// Not durable yet, in order.
  private var pendingBytes: [UInt32: [Int]] = [:]
  private var pendingNames: [String: [Int]] = [:]

  init(_ trace: Trace, folder: String) throws {
    self.trace = trace
    base = folder
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }

  /// Whether a crash here can lose anything at all.
  var isUncertain: Bool {
    !pendingBytes.isEmpty || !pendingNames.isEmpty || isWriteNext
  }

  private var isWriteNext: Bool {
    guard point < trace.operations.count else { return false }
    return trace.operations[point].kind == .write
  }

  // MARK: Along the trace

  /// All operations before `point` are done.
  func advance(to point: Int) throws {
    while self.point < point {
      let number = self.point
      let operation = trace.operations[number]
      switch operation.kind {
      case .write where operation.isSynced:
        try withFile(basePath(operation.file)) { try apply(operation, to: $0) }
      case .write, .resize: pendingBytes[operation.file, default: []].append(number)
      case .sync:
        let pending = pendingBytes.removeValue(forKey: operation.file) ?? []
        try withFile(basePath(operation.file)) { file in
          for number in pending { try apply(trace.operations[number], to: file) }
        }
      case .create, .makeDirectory, .remove, .rename:
        pendingNames[operation.folder, default: []].append(number)
      case .syncDirectory:
        for number in pendingNames.removeValue(forKey: operation.folder) ?? [] {
          change(&names, trace.operations[number])
        }
      case .open, .openToRead: break
      }
      self.point += 1
    }
  }

  private func change(_ names: inout [String: UInt32], _ operation: TraceOperation) {
    switch operation.kind {
    case .create: names[operation.path] = operation.file
    case .makeDirectory: names[operation.path] = 0
    case .remove: names[operation.path] = nil
    case .rename: names[operation.newPath] = names.removeValue(forKey: operation.path)
    default: break
    }
  }

  // MARK: Images

  /// Makes what is left after a crash at the current point.
  func makeImage(_ loss: Loss, at folder: String) throws {
    var generator = SeededGenerator(seed: UInt64(point))
    if case .random(let seed) = loss {
      generator = SeededGenerator(seed: seed &* 1_000_003 &+ UInt64(point))
    }
    var names = names
    for folder in pendingNames.keys.sorted() {
      let pending = pendingNames[folder] ?? []
      let keptCount =
        switch loss {
        case .process, .processWithin: pending.count
        case .everything: 0
        case .random: Int.random(in: 0...pending.count, using: &generator)
        }
      for number in pending.prefix(keptCount) { change(&names, trace.operations[number]) }
    }
    for (name, file) in names.sorted(by: { $0.key < $1.key })
    where hasFolder(name, in: names) {
      let path = name.isEmpty ? folder : folder + "/" + name
      if file == 0 {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
      } else {
        try makeFile(file, loss, at: path, &generator)
      }
    }
  }

  private func hasFolder(_ name: String, in names: [String: UInt32]) -> Bool {
    var name = name
    while let slash = name.lastIndex(of: "/") {
      name = String(name[..<slash])
      guard names[name] == 0 else { return false }
    }
    return true
  }

  private func makeFile(
    _ file: UInt32,
    _ loss: Loss,
    at path: String,
    _ generator: inout SeededGenerator
  ) throws {
    try copyBase(of: file, to: path)
    try withFile(path) { descriptor in
      for number in pendingBytes[file] ?? [] {
        try apply(trace.operations[number], to: descriptor, loss, &generator)
      }
      // The operation that was under way.
      guard isWriteNext, trace.operations[point].file == file else { return }
      let operation = trace.operations[point]
      switch loss {
      case .process, .everything: return
      case .processWithin:
        try apply(operation, to: descriptor, byteCount: operation.bytes.count / 2 / 4096 * 4096)
      case .random: try apply(operation, to: descriptor, loss, &generator)
      }
    }
  }

  private func apply(
    _ operation: TraceOperation,
    to file: Int32,
    _ loss: Loss,
    _ generator: inout SeededGenerator
  ) throws {
    guard case .random = loss else {
      if loss != .everything { try apply(operation, to: file) }
      return
    }
    switch UInt8.random(in: 0..<3, using: &generator) {
    case 0: return
    case 1: try apply(operation, to: file)
    default:
      guard operation.kind == .write else { return }
      var start = 0
      while start < operation.bytes.count {
        let sectorEnd = (Int(operation.offset) + start) / 512 * 512 + 512 - Int(operation.offset)
        let end = min(sectorEnd, operation.bytes.count)
        if Bool.random(using: &generator) {
          let part = UnsafeRawBufferPointer(rebasing: operation.bytes[start..<end])
          try write(part, at: Int(operation.offset) + start, to: file)
        }
        start = end
      }
    }
  }

  // MARK: Files

  private func basePath(_ file: UInt32) -> String { base + "/\(file)" }

  private func copyBase(of file: UInt32, to path: String) throws {
    guard iorecorder_copy(basePath(file), path) == 0 else { throw POSIXError(.EIO) }
  }

  private func withFile(_ path: String, _ body: (Int32) throws -> Void) throws {
    let file = open(path, O_RDWR | O_CREAT, 0o600)
    guard file >= 0 else { throw POSIXError(.EIO) }
    defer { close(file) }
    try body(file)
  }

  private func apply(
    _ operation: TraceOperation,
    to file: Int32,
    byteCount: Int? = nil
  ) throws {
    if operation.kind == .write {
      let count = byteCount ?? operation.bytes.count
      let bytes = UnsafeRawBufferPointer(rebasing: operation.bytes[..<count])
      return try write(bytes, at: Int(operation.offset), to: file)
    }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw POSIXError(.EIO) }
    // Growth only: nothing in a store is ever cut short.
    guard status.st_size < off_t(operation.byteCount) else { return }
    guard ftruncate(file, off_t(operation.byteCount)) == 0 else { throw POSIXError(.EIO) }
  }

  private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int, to file: Int32) throws {
    guard !bytes.isEmpty else { return }
    guard pwrite(file, bytes.baseAddress, bytes.count, off_t(offset)) == bytes.count else {
      throw POSIXError(.EIO)
    }
  }
}
