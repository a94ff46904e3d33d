// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift target: a warning is an error.
let testSettings: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

/// What the product is built with: unsafe code is marked as well.
///
/// Whether two accesses overlap is checked in debug builds, with which all tests run: shared state is behind locks, and those checks are a sixth of the
/// instructions of a short call (docs/decisions/0006).
let swiftSettings: [SwiftSetting] =
  testSettings + [
    .strictMemorySafety(),
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
  ]

/// Only `kvstore_*` leaves the C library, it carries the Swift standard library, and it is never unloaded
/// (its threads and thread-local state could not survive that).
let sharedObjectFlags: LinkerSetting = .unsafeFlags([
  "-static-stdlib",
  "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/KVStoreC/exports.map",
  "-Xlinker", "-soname=libkvstore.so.0",
  "-Xlinker", "-z", "-Xlinker", "nodelete",
])

let package = Package(
  name: "kvstore",
  products: [
    .library(name: "KVStore", targets: ["KVStore"]),
    // Installed as libkvstore.so; a product named like the command would make SwiftPM drop the command.
    .library(name: "KVStoreC", type: .dynamic, targets: ["KVStoreC"]),
    .library(name: "KVAdmin", targets: ["KVAdmin"]),
    .library(name: "KVRequests", targets: ["KVRequests"]),
    .executable(name: "kvstore", targets: ["KVStoreMain"]),
    // The command for a program that is more than it: kvstore-llama.
    .library(name: "KVStoreCLI", targets: ["KVStoreCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")
  ],
  targets: [
    // System libraries: a module map and a shim each, no logic.
    .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .target(name: "CLinux"),
    .target(name: "CKVStore"),
    .target(name: "CSHA256"),
    // Has the header of the C interface and finds its functions at run time.
    .target(name: "CCallBench", cSettings: [.headerSearchPath("../CKVStore/include")]),

    // The library, lowest first.
    .target(name: "KVCore", dependencies: ["CXXHash", "CSHA256"], swiftSettings: swiftSettings),
    .target(name: "KVFile", dependencies: ["KVCore", "CLinux"], swiftSettings: swiftSettings),
    // Optimised in debug builds too: its loops go over every byte, and are 1000 times slower without.
    .target(
      name: "KVCodec",
      dependencies: ["KVCore", "CZstd"],
      swiftSettings: swiftSettings + [.unsafeFlags(["-O"], .when(configuration: .debug))]
    ),
    .target(name: "KVIndex", dependencies: ["KVCore"], swiftSettings: swiftSettings),
    // As well: 7,000 chances are computed every few requests.
    .target(
      name: "KVPolicy",
      dependencies: ["KVCore"],
      swiftSettings: swiftSettings + [.unsafeFlags(["-O"], .when(configuration: .debug))]
    ),
    .target(name: "KVCatalog", dependencies: ["KVCore", "CLMDB"], swiftSettings: swiftSettings),
    .target(
      name: "KVTiers",
      dependencies: ["KVCore", "KVFile"],
      swiftSettings: swiftSettings
    ),
    // What lies outside this machine: the seam to the clients, and the chunks that go through it.
    .target(name: "KVRemote", dependencies: ["KVCore", "KVCodec"], swiftSettings: swiftSettings),
    // A client of Valkey and Redis.
    .target(
      name: "KVRedis",
      dependencies: ["KVCore", "KVFile", "KVRemote"],
      swiftSettings: swiftSettings
    ),
    .target(
      name: "KVStore",
      dependencies: [
        "KVCore", "KVFile", "KVCodec", "KVIndex", "KVPolicy", "KVCatalog", "KVTiers", "KVRemote",
        "KVRedis",
      ],
      swiftSettings: swiftSettings
    ),
    // What a store's owner does with it; no engine links it.
    .target(
      name: "KVAdmin",
      dependencies: ["KVCore", "KVFile", "KVCodec", "KVCatalog", "KVTiers", "KVStore"],
      swiftSettings: swiftSettings
    ),
    .target(
      name: "KVSimulation",
      dependencies: ["KVCore", "KVCodec", "KVIndex", "KVPolicy", "KVTiers"],
      swiftSettings: swiftSettings
    ),
    .target(name: "KVVocabulary", swiftSettings: swiftSettings),
    // Optimised in debug builds too: it goes over every byte of a log.
    .target(
      name: "KVRequests",
      dependencies: ["KVCore"],
      swiftSettings: swiftSettings + [.unsafeFlags(["-O"], .when(configuration: .debug))]
    ),
    .target(
      name: "KVStoreC",
      dependencies: ["KVCore", "KVStore", "CKVStore"],
      exclude: ["exports.map"],
      swiftSettings: swiftSettings,
      linkerSettings: [sharedObjectFlags]
    ),
    .target(
      name: "KVStoreCLI",
      dependencies: [
        "KVAdmin", "KVStore", "KVCore", "KVFile", "KVCodec", "KVSimulation", "KVVocabulary",
        "KVRequests", "KVRemote", "KVRedis", "CCallBench",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: swiftSettings
    ),
    .executableTarget(
      name: "KVStoreMain",
      dependencies: ["KVStoreCLI"],
      swiftSettings: swiftSettings
    ),

    // The example of docs/examples, so that it compiles.
    .executableTarget(
      name: "restore-example",
      dependencies: ["KVStore", "KVCore"],
      path: "docs/examples/swift"
    ),

    // Tests: one target for each part, on the shared support.
    .target(
      name: "KVTestSupport",
      dependencies: ["KVCore", "KVFile", "KVRemote"],
      path: "Tests/KVTestSupport",
      swiftSettings: testSettings
    ),
    .target(name: "CIORecorder", path: "Tests/CIORecorder"),
    // The crash matrix: a program of its own, because its definitions of `pwrite` and the like take the place of libc's.
    .executableTarget(
      name: "crash-test",
      dependencies: [
        "KVAdmin", "KVStore", "KVCatalog", "KVCore", "KVTestSupport", "CIORecorder",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Tests/CrashTest",
      swiftSettings: testSettings
    ),
    // Makes a client's calls for Tests/remote.
    .executableTarget(
      name: "remote-probe",
      dependencies: ["KVRedis", "KVRemote", "KVCore"],
      path: "Tests/remote/Probe",
      swiftSettings: testSettings
    ),
    .target(
      name: "KVReplaySupport",
      dependencies: ["KVCore", "KVStore"],
      path: "Tests/KVReplaySupport",
      swiftSettings: testSettings
    ),
    .executableTarget(
      name: "lru-replay",
      dependencies: ["KVReplaySupport", "KVSimulation", "KVStore"],
      path: "Tests/lru-replay/Sources",
      swiftSettings: testSettings
    ),
    // The parsers of stored bytes, for a fuzzer (Scripts/fuzz) and for a test that replays its corpus.
    .target(
      name: "KVFuzzTargets",
      dependencies: [
        "KVCore", "KVCodec", "KVCatalog", "KVRemote", "KVRedis", "KVStore", "KVAdmin",
        "KVSimulation", "KVVocabulary", "KVRequests",
      ],
      path: "Tests/Fuzzing/Targets",
      swiftSettings: testSettings
    ),
    .executableTarget(
      name: "fuzz-parsers",
      dependencies: ["KVFuzzTargets"],
      path: "Tests/Fuzzing/Program",
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVFuzzTests",
      dependencies: ["KVFuzzTargets"],
      path: "Tests/Fuzzing/Tests",
      swiftSettings: testSettings
    ),
    .testTarget(name: "KVCoreTests", dependencies: ["KVCore"], swiftSettings: testSettings),
    .testTarget(
      name: "KVFileTests",
      dependencies: ["KVFile", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVCodecTests",
      dependencies: ["KVCore", "KVCodec", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVIndexTests",
      dependencies: ["KVCore", "KVIndex", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVCatalogTests",
      dependencies: ["KVCore", "KVCatalog", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVTiersTests",
      dependencies: ["KVCore", "KVFile", "KVTiers", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVRemoteTests",
      dependencies: ["KVCore", "KVCodec", "KVRemote", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVStoreTests",
      dependencies: [
        "KVCore", "KVFile", "KVCatalog", "KVRemote", "KVSimulation", "KVStore", "KVAdmin",
        "KVTestSupport", "KVReplaySupport",
      ],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVSimulationTests",
      dependencies: ["KVCore", "KVPolicy", "KVSimulation", "KVTestSupport"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVRedisTests",
      dependencies: ["KVRedis", "KVRemote", "KVFile", "KVCore"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVRequestsTests",
      dependencies: ["KVRequests"],
      swiftSettings: testSettings
    ),
    .testTarget(
      name: "KVVocabularyTests",
      dependencies: ["KVVocabulary", "KVTestSupport"],
      swiftSettings: testSettings
    ),
  ],
  swiftLanguageModes: [.v6]
)
