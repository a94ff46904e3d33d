import KVCore
import KVStore

/// What kind of store a workload runs on.
enum Scenario: String, CaseIterable {
  /// More room than data: nothing that was confirmed may ever be missing.
  case roomy
  /// Slot files are full all the time, and two slot sizes fight for them.
  case fullSlots
  /// The catalog is full all the time.
  case fullCatalog
  /// Disk and archive are full all the time.
  case fullArchive
  /// Opened again and again with less room than it has taken, then with more.
  case shrinking

  func configuration(path: String) -> StoreConfiguration {
    var configuration = StoreConfiguration(path: path)
    configuration.hostBytes = 64 << 20
    // Only a flush makes commits, so that a seed gives the same operations each time.
    configuration.commitIntervalNanoseconds = 1 << 62
    switch self {
    case .roomy:
      configuration.capacityBytes = 256 << 20
      configuration.catalogBytes = 16 << 20
    case .fullSlots:
      configuration.capacityBytes = 64 << 20
      configuration.catalogBytes = 48 << 20
    case .shrinking:
      configuration.capacityBytes = 80 << 20
      configuration.catalogBytes = 48 << 20
    case .fullCatalog:
      configuration.capacityBytes = 256 << 20
      configuration.catalogBytes = 1 << 20
    case .fullArchive:
      configuration.capacityBytes = 64 << 20
      configuration.catalogBytes = 48 << 20
      configuration.archiveBytesMin = 1 << 20
      configuration.archiveBytes = 6 << 20
      configuration.archiveFileBytes = 1 << 20
    }
    return configuration
  }

  /// Slots of two sizes, payload in the catalog, and the first one's twin with a salt.
  var identities: [NamespaceIdentity] {
    let regionByteCounts: [[Int]] =
      switch self {
      case .roomy: [[20_000, 4000], [3000], [50_000], [20_000, 4000]]
      case .fullSlots, .shrinking: [[300_000, 100_000], [1000], [700_000], [300_000, 100_000]]
      case .fullArchive: [[300_000, 100_000], [1000], [200_000], [300_000, 100_000]]
      case .fullCatalog: [[20_000], [12_000], [9000, 6000], [12_000]]
      }
    return regionByteCounts.enumerated().map { number, regions in
      var identity = NamespaceIdentity()
      identity.tokensPerBlock = Workload.tokensPerBlock
      identity.regionByteCounts = regions
      identity.modelName = "model \(number % 3)"
      identity.kvDtype = "fp16"
      if number == 3 { identity.salt = Array("a tenant".utf8) }
      return identity
    }
  }
}
