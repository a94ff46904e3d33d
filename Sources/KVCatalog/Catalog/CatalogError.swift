internal import CLMDB
internal import Glibc

/// What can go wrong with the catalog.
///
/// A row that is not there is a result, not an error.
package enum CatalogError: Error, Equatable, Sendable {
  /// LMDB refused, with this code.
  case lmdb(code: Int32)
  /// The map is full; the transaction was aborted and nothing is lost.
  case mapFull
  /// Every slot of LMDB's reader table is taken.
  case readersFull
  /// Written in another version of the format, or with feature bits that this one does not know; 0 = a newer LMDB.
  case versionMismatch(found: UInt32)
  /// The file is something else.
  case notACatalog
  /// A checksum or a length is wrong.
  case corrupt(CatalogPart)
  /// The operating system refused.
  case io(errno: Int32)
  /// The catalog, or the transaction, has ended.
  case closed
  /// A write on a catalog that was opened read-only.
  case readOnly
  /// Two identity records with one hash.
  case identityCollision
  /// No namespace has this id.
  case namespaceMissing
  /// An argument that does not fit the format: a bug of the caller.
  case invalidArgument
}

/// Which part of the catalog is damaged.
package enum CatalogPart: Equatable, Sendable {
  case page, file, meta, namespace, blockRow, stamp, slotFile, event, inlinePayload, deadline, pin
  case session
}

/// The one place where codes of LMDB become errors.
func check(_ code: Int32) throws(CatalogError) {
  switch code {
  case MDB_SUCCESS: return
  case MDB_MAP_FULL: throw .mapFull
  case MDB_READERS_FULL: throw .readersFull
  case MDB_INVALID: throw .notACatalog
  case MDB_VERSION_MISMATCH: throw .versionMismatch(found: 0)
  case MDB_CORRUPTED, MDB_PAGE_NOTFOUND: throw .corrupt(.page)
  case 1...: throw .io(errno: code)
  default: throw .lmdb(code: code)
  }
}
