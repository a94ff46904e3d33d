internal import KVCore
internal import KVFile

/// `identities.kvs`: what slot files alone do not say, kept beside them so that a lost catalog can be rebuilt
/// (docs/file-format.md).
struct IdentityFile {
  /// One namespace; its root key is the hash of the record, which proves both.
  struct Identity: Equatable {
    var id: NamespaceID
    var record: [UInt8]
    var rootKey: BlockKey { unsafe record.withUnsafeBytes { xxh3Key($0) } }
  }

  private enum Kind: UInt32 { case identity = 0 }

  private static let magic: UInt32 = 0x5349_564B
  private static let headerByteCount = 40

  var identities: [Identity] = []

  static func path(_ folder: String) -> String { folder + "/identities.kvs" }

  /// The records of this store in the order in which they were written; what is torn or damaged is stepped over.
  ///
  /// An absent file has none.
  static func read(_ folder: String, storeUUID: [UInt8]?, storage: any Storage) throws(FileError)
    -> IdentityFile
  {
    guard storage.fileExists(path(folder)) else { return IdentityFile() }
    let file = try storage.openFile(path(folder), mode: .readOnly, direct: false)
    defer { file.close() }
    let buffer = try AlignedBuffer(byteCount: Int(try file.byteCount()))
    unsafe try file.read(into: buffer.bytes, at: 0)
    return unsafe IdentityFile(buffer.readOnly, storeUUID: storeUUID)
  }

  private init() {}

  init(_ bytes: UnsafeRawBufferPointer, storeUUID: [UInt8]?) {
    var offset = 0
    while offset + Self.headerByteCount <= bytes.count {
      if let next = unsafe add(bytes, at: offset, storeUUID) { offset = next } else { offset += 1 }
    }
  }

  /// Where the next record begins; nil when there is none at `offset`.
  private mutating func add(
    _ bytes: UnsafeRawBufferPointer,
    at offset: Int,
    _ storeUUID: [UInt8]?
  ) -> Int? {
    var reader = unsafe ByteReader(bytes, offset: offset)
    guard reader.read(UInt32.self) == Self.magic, let id = reader.read(UInt32.self),
      let byteCount = reader.read(UInt32.self), let kind = reader.read(UInt32.self),
      let uuid = reader.readBytes(16), let checksum = reader.read(UInt64.self),
      let body = reader.readBytes(Int(byteCount)),
      unsafe body.withUnsafeBytes({ xxh3Checksum($0) }) == checksum
    else { return nil }
    guard storeUUID == nil || uuid == storeUUID else { return reader.offset }
    switch Kind(rawValue: kind) {
    case .identity: identities.append(Identity(id: NamespaceID(rawValue: id), record: body))
    case nil: break
    }
    return reader.offset
  }
}
