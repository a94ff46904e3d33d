// swift-tools-version: 6.2
import PackageDescription

// Other stores, for `kvstore bench compare`; a package of its own, so that the product depends on none of them.
// Debian: liblmdb-dev, librocksdb-dev.
let package = Package(
  name: "kvstore-peers",
  targets: [
    .executableTarget(
      name: "kvstore-peers",
      path: "Sources",
      cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])],
      linkerSettings: [.linkedLibrary("lmdb"), .linkedLibrary("rocksdb")]
    )
  ]
)
