internal import Glibc
internal import KVCore

/// Whether the folder that is open is still the store that one finds at its path.
final class FolderWatch: Sendable {
  private let folder: StoreFolder
  private let catalogIdentity: FileIdentity?
  private let gone = AtomicFlag(false)

  init(_ folder: StoreFolder, catalog: FileIdentity?) {
    self.folder = folder
    catalogIdentity = catalog
  }

  /// Throws while the folder is removed, moved or replaced: what is written there is not found again.
  func check() throws(StoreError) {
    let isGone = folder.isGone(catalog: catalogIdentity)
    gone.exchange(isGone)
    if isGone { throw .io(.folder, errno: ESTALE) }
  }

  /// The same, if it was gone when somebody looked last.
  func checkIfGone() throws(StoreError) {
    if gone.value { try check() }
  }
}
