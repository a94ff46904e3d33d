/// How full the catalog is.
package struct CatalogUsage: Sendable, Equatable {
  package var mapByteCount: Int
  /// Bytes of the file: pages in use and free pages.
  package var fileByteCount: Int
  package var freeByteCount: Int
  package var usedByteCount: Int { fileByteCount - freeByteCount }
}
