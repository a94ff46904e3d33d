import CIORecorder

/// One change of the file system, as it was recorded.
struct TraceOperation {
  enum Kind: UInt32 {
    case write = 1
    case resize, sync, syncDirectory, create, makeDirectory, remove, rename, open, openToRead
  }

  let kind: Kind
  let file: UInt32
  let offset: UInt64
  let byteCount: UInt64
  let bytes: UnsafeRawBufferPointer
  /// Durable when it returned.
  let isSynced: Bool
  let path: String
  let newPath: String

  var isEntryChange: Bool {
    switch kind {
    case .create, .makeDirectory, .remove, .rename: true
    default: false
    }
  }

  /// The folder whose entries it changes or syncs.
  var folder: String {
    if kind == .syncDirectory { return path }
    return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
  }
}

/// The recorder's operations; valid until it starts again.
struct Trace {
  let operations: [TraceOperation]

  /// What has been recorded so far.
  static func recorded() -> Trace {
    let operations = (0..<iorecorder_count()).compactMap { number -> TraceOperation? in
      guard let operation = iorecorder_operation(number)?.pointee,
        let kind = TraceOperation.Kind(rawValue: operation.kind)
      else { return nil }
      return TraceOperation(
        kind: kind,
        file: operation.file,
        offset: operation.offset,
        byteCount: operation.byte_count,
        bytes: UnsafeRawBufferPointer(
          start: operation.bytes,
          count: operation.bytes == nil ? 0 : Int(operation.byte_count)
        ),
        isSynced: operation.is_synced != 0,
        path: operation.path.map { String(cString: $0) } ?? "",
        newPath: operation.new_path.map { String(cString: $0) } ?? ""
      )
    }
    return Trace(operations: operations)
  }
}
