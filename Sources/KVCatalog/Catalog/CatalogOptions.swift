package import KVCore

/// How a catalog is opened.
package struct CatalogOptions: Sendable {
  /// Whether a commit waits for the disk; `.buffered` is for tests.
  package enum Durability: Sendable { case synced, buffered }

  /// Where LMDB's lock file is, by which processes and threads keep clear of each other.
  package enum Lock: Sendable, Equatable {
    /// Beside the catalog.
    case beside
    /// This file, which is there already and as long as `lockByteCount` wants it; links to it are made in its folder.
    case file(String)
    /// Nowhere: nobody else knows of the catalog, or nobody can write to it.
    case none
  }

  /// The file `catalog.mdb`.
  package var path: String
  package var lock = Lock.beside
  /// The file that has to be found there, an empty one where a catalog is made; nil = whatever there is.
  package var identity: FileIdentity?
  /// Kept as long as the catalog is open: the path may go through it.
  package var folder: (any AnyObject & Sendable)?
  /// Bytes that the catalog may grow to; nil = what the file says.
  package var mapByteCount: Int?
  package var isReadOnly = false
  package var durability = Durability.synced
  package var readerCountMax: UInt32 = 510
  /// The ring of events; a small map keeps fewer (`eventCountMax(forMap:)`).
  package var eventCountMax: UInt64 = 65_536

  /// Events that fit into an eighth of the map; an event takes 80 to 160 bytes of it, by how full LMDB's pages are.
  static func eventCountMax(forMap mapByteCount: Int) -> UInt64 {
    UInt64(max(64, mapByteCount / 8 / 160))
  }

  package init(path: String) { self.path = path }

  /// Bytes that LMDB's lock file takes at most for so many readers: a cache line for each, and what all share.
  package var lockByteCount: Int { (Int(readerCountMax) + 64) * 64 }
}
