// swift-tools-version: 6.2
import PackageDescription

/// A warning is an error, as in the main package.
let settings: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

// A package of its own, so that the library stays free of an HTTP server.
let package = Package(
  name: "kvstore-llama",
  products: [.executable(name: "kvstore-llama", targets: ["kvstore-llama"])],
  dependencies: [
    .package(name: "kvstore", path: "../.."),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    // Reads and makes the server's slot files; no HTTP, no store.
    .target(name: "LlamaSlots", swiftSettings: settings),
    .target(
      name: "LlamaCompanion",
      dependencies: [
        "LlamaSlots",
        .product(name: "KVRequests", package: "kvstore"),
        .product(name: "KVStore", package: "kvstore"),
        .product(name: "AsyncHTTPClient", package: "async-http-client"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "HTTPTypes", package: "swift-http-types"),
        .product(name: "HummingbirdCore", package: "hummingbird"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      ],
      swiftSettings: settings
    ),
    .executableTarget(
      name: "kvstore-llama",
      dependencies: [
        "LlamaCompanion",
        .product(name: "KVStore", package: "kvstore"),
        .product(name: "KVStoreCLI", package: "kvstore"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
      ],
      swiftSettings: settings
    ),
    .testTarget(name: "LlamaSlotsTests", dependencies: ["LlamaSlots"], swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)
