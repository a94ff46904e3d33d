import ArgumentParser
import FoundationEssentials
import KVSimulation

/// The engine and the tiers that a trace is simulated on.
struct EngineOptions: ParsableArguments {
  @Option(help: "Simulate this GPU: \(DeviceProfile.presets.map(\.name).joined(separator: ", ")).")
  var gpu: String?

  @Option(help: "GPUs that share each layer.")
  var gpus = 1

  @Option(help: "The model: \(ModelProfile.presets.map(\.name).joined(separator: ", ")).")
  var model = "llama-3.1-8b"

  @Option(help: "Host tier of the store; 0 = none.")
  var host = OptionalByteSize(64 << 30)

  @Option(help: "Disk tier of the store; 0 = none.")
  var disk = OptionalByteSize(1 << 40)

  @Option(help: "Archive tier of the store, compressed; 0 = none.")
  var archive = OptionalByteSize(0)

  @Option(help: "Stored bytes of a block in the archive ÷ its bytes.")
  var archivePart = 0.68

  @Option(help: "Remote tier of the store, outside the machine; 0 = none.")
  var remote = OptionalByteSize(0)

  @Option(help: "Bytes a second of the network to the remote tier, in GB/s. 1.25 is 10 Gbit/s.")
  var remoteBandwidth = 1.25

  @Option(help: "Round trip to the remote tier, in microseconds.")
  var remoteRoundTrip = 500.0

  @Option(
    help: "What is sent to the remote tier: all, or reused, which a second request has as well."
  )
  var remoteWrites = RemoteWritesArgument.reused

  @Option(help: "Bytes a second that the host tier is read with, in GB/s.")
  var hostRead: Double?

  @Option(help: "Bytes a second that disk and archive are read with, in GB/s.")
  var diskRead: Double?

  @Option(help: "Time until a read from disk begins, in microseconds.")
  var diskLatency = 100.0

  @Option(help: "Bandwidths saved by kvstore bench limits --save-profile.", completion: .file())
  var profile: String?

  @Option(help: "Tokens that a step takes at most.")
  var stepTokens = 8192

  @Option(help: "The part of the GPU's stated operations that prefill reaches.")
  var efficiency = 0.5

  @Flag(help: "The GPU waits for transfers.")
  var noOverlap = false

  @Flag(help: "Restore also what would sooner be computed.")
  var alwaysRestore = false

  @Option(help: "Write pictures (SVG), one for each question, into this folder.")
  var plot: String?

  func validate() throws {
    guard (1...64).contains(gpus) else { throw ValidationError("--gpus must be 1 to 64.") }
    guard (64...1 << 20).contains(stepTokens) else {
      throw ValidationError("--step-tokens must be 64 to 1048576.")
    }
    guard efficiency > 0.01, efficiency <= 1 else {
      throw ValidationError("--efficiency must be above 0.01, at most 1.")
    }
    guard archivePart > 0.01, archivePart <= 1 else {
      throw ValidationError("--archive-part must be above 0.01, at most 1.")
    }
    guard (0...1e7).contains(remoteRoundTrip) else {
      throw ValidationError("--remote-round-trip must be 0 to 10000000.")
    }
    for rate in [hostRead, diskRead, remoteBandwidth].compactMap(\.self)
    where rate <= 0 || rate > 1e4 {
      throw ValidationError("Bandwidths must be above 0, at most 10000 GB/s.")
    }
    guard (0...1e7).contains(diskLatency) else {
      throw ValidationError("--disk-latency must be 0 to 10000000.")
    }
    if gpu != nil { _ = try engineProfile() }
  }

  func engineProfile() throws -> EngineProfile {
    guard let device = DeviceProfile.presets.first(where: { $0.name == gpu }) else {
      throw ValidationError("There is no GPU of this name; --help lists them.")
    }
    guard let model = ModelProfile.presets.first(where: { $0.name == model }) else {
      throw ValidationError("There is no model of this name; --help lists them.")
    }
    var engine = EngineProfile(device: device, model: model)
    engine.deviceCount = gpus
    engine.stepTokenCount = stepTokens
    engine.computeEfficiency = efficiency
    engine.overlapsTransfers = !noOverlap
    engine.declinesSlowRestores = !alwaysRestore
    guard engine.slotCount(tokensPerBlock: 1) > 0 else {
      throw ValidationError("The model's weights do not fit: give more --gpus.")
    }
    return engine
  }

  func storeProfile(ttlMilliseconds: Int64?) throws -> StoreProfile {
    let machine = try profile.map(readProfile)
    let latency = Int64((diskLatency * 1000).rounded())
    // Without a measurement: one direction of DDR5 memory; a PCIe Gen4 x4 SSD.
    let hostRate = hostRead.map { $0 * 1e9 } ?? machine?.copyBytesPerSecond ?? 50e9
    let diskRate = diskRead.map { $0 * 1e9 } ?? machine?.diskReadBytesPerSecond ?? 6e9
    var store = StoreProfile()
    store.ttlMilliseconds = ttlMilliseconds
    func tier(_ size: OptionalByteSize, _ rate: Double, _ latency: Int64) -> StoreProfile
      .TierProfile?
    {
      size.byteCount == 0
        ? nil
        : StoreProfile.TierProfile(
          byteCount: size.byteCount,
          readBytesPerSecond: rate,
          latencyNanoseconds: latency
        )
    }
    store.host = tier(host, hostRate, 0)
    store.disk = tier(disk, diskRate, latency)
    store.archive = tier(archive, diskRate, latency)
    store.archive?.storedPart = archivePart
    if remote.byteCount > 0 {
      store.remote = StoreProfile.RemoteProfile(
        byteCount: remote.byteCount,
        bytesPerSecond: remoteBandwidth * 1e9,
        roundTripNanoseconds: Int64((remoteRoundTrip * 1000).rounded()),
        sendsReusedOnly: remoteWrites == .reused
      )
    }
    return store
  }

  private func readProfile(_ file: String) throws -> MachineProfile {
    guard let data = FileManager.default.contents(atPath: file) else {
      throw CommandFailure("\(file): cannot read")
    }
    do {
      let profile = try JSONDecoder().decode(MachineProfile.self, from: data)
      guard profile.copyBytesPerSecond > 0, profile.diskReadBytesPerSecond > 0 else {
        throw CommandFailure("\(file): a bandwidth is not above 0")
      }
      return profile
    } catch is DecodingError {
      throw CommandFailure("\(file): not a profile of kvstore bench limits --save-profile")
    }
  }
}

/// `--remote-writes`: what is sent there.
enum RemoteWritesArgument: String, CaseIterable, ExpressibleByArgument {
  case all, reused
}

/// A number of bytes, or 0.
struct OptionalByteSize: ExpressibleByArgument {
  let byteCount: Int

  init(_ byteCount: Int) { self.byteCount = byteCount }

  init?(argument: String) {
    if argument == "0" {
      byteCount = 0
    } else {
      guard let size = ByteSize(argument: argument) else { return nil }
      byteCount = size.byteCount
    }
  }

  var defaultValueDescription: String { byteCount == 0 ? "0" : byteText(byteCount) }
}
