/// What the slot files of this process's store may take, in bytes.
struct SlotBounds: Sendable {
  /// Of the disk: the store's bound less the catalog's map and room for the small files.
  let disk: Int
  /// Of one file of the disk.
  let diskFile: Int
  /// Of the archive; 0 = nothing is moved there.
  let archive: Int
  /// Of one file of the archive.
  let archiveFile: Int
}
