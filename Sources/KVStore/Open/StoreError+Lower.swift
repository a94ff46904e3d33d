internal import Glibc
package import KVCatalog
package import KVCore
package import KVFile

extension StoreError {
  /// What a refused file operation means to the caller.
  package init(_ error: FileError, _ action: FileAction) {
    if error.isNoSpace {
      self = .noSpace(action)
    } else if error.errno == ENOMEM {
      self = .outOfMemory
    } else {
      self = .io(action, errno: error.errno)
    }
  }

  /// What the catalog's error means to the caller.
  ///
  /// Exhaustive: a new case has to be mapped here.
  package init(_ error: CatalogError, _ action: FileAction = .catalog) {
    switch error {
    case .lmdb: self = .corrupt(.catalogPage)
    case .mapFull: self = .full
    case .readersFull: self = .locked(.readerTableFull)
    case .versionMismatch(let found): self = .versionMismatch(found: found)
    case .notACatalog: self = .notAStore
    case .corrupt(.meta): self = .corrupt(.catalogMeta)
    case .corrupt(.namespace): self = .corrupt(.identityRecord)
    case .corrupt: self = .corrupt(.catalogPage)
    case .io(ENOMEM): self = .outOfMemory
    case .io(ESTALE) where action == .catalog: self = .io(.folder, errno: ESTALE)
    case .io(let code):
      self = code == ENOSPC || code == EDQUOT ? .noSpace(action) : .io(action, errno: code)
    case .closed: self = .closed
    case .readOnly: self = .readOnly
    case .identityCollision: self = .identityCollision
    case .namespaceMissing, .invalidArgument: self = .poisoned
    }
  }
  /// What a job that was not taken means to the caller.
  init(_ refusal: ServicePool.Refusal) {
    switch refusal {
    case .full: self = .busy
    case .noThread: self = .outOfMemory
    case .stopping: self = .closed
    }
  }
}

extension Catalog {
  /// Runs a read transaction for a caller of the store.
  func lookUp<Result>(
    _ body: (ReadTransaction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    do throws(CatalogError) { return try read(body) } catch { throw StoreError(error) }
  }
}
