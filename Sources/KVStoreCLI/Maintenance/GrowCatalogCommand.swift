import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore grow-catalog`: raises the bytes that a stopped store's catalog may take.
struct GrowCatalogCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grow-catalog",
    abstract: "Let the catalog of a stopped store grow further.",
    discussion: """
      A catalog that has reached its size evicts blocks although their payload would have room; \
      `kvstore inspect` shows how full it is. Its size is part of the store's capacity: where slot files fill the rest, \
      a larger catalog needs a larger capacity, and the engine has to open the store with it from then on \
      (capacity_bytes). Needs the store stopped.

      EXAMPLES
        kvstore grow-catalog STORE --bytes 2GiB
        kvstore grow-catalog STORE --bytes 2GiB --capacity 200GiB
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Option(help: "Bytes that the catalog may take, for example 2GiB.")
  var bytes: ByteSize

  @Option(
    help: "The capacity that the store will be opened with; default: the one it was made with."
  )
  var capacity: ByteSize?

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try reportingErrors(at: store) {
      var configuration = StoreConfiguration(path: store)
      configuration.capacityBytes = try capacity?.byteCount ?? Store.recordedCapacity(configuration)
      let growth: CatalogGrowth
      do {
        growth = try Store.growCatalog(configuration, to: bytes.byteCount)
      } catch StoreError.full {
        throw CommandFailure(
          "\(store): slot files and a catalog of \(bytes) are more than the capacity of "
            + "\(byteText(configuration.capacityBytes)): give a larger --capacity, and open the store with it"
        )
      } catch StoreError.invalidArgument(.catalogSize) {
        throw CommandFailure(
          "\(store): the new size must be larger than the old one, and at most 15/16 of the capacity of "
            + byteText(configuration.capacityBytes)
        )
      }
      let document = GrowCatalogDocument(
        catalogBytesBefore: growth.catalogBytesBefore,
        catalogBytes: growth.catalogBytes,
        capacityBytes: configuration.capacityBytes
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `grow-catalog`.
struct GrowCatalogDocument: CommandDocument {
  static let schema = "grow-catalog"

  var catalogBytesBefore: Int
  var catalogBytes: Int
  /// What the store has to be opened with at least for the catalog to have its room beside the slot files.
  var capacityBytes: Int

  /// The document for people.
  var text: String {
    "the catalog may take \(byteText(catalogBytes)), before \(byteText(catalogBytesBefore)); "
      + "open the store with a capacity of \(byteText(capacityBytes))"
  }
}
