/// The engine and the machine around the GPU.
package struct EngineProfile: Codable, Equatable, Sendable {
  package var device: DeviceProfile
  package var model: ModelProfile
  /// Devices that share each layer (tensor parallel); their figures are added up.
  package var deviceCount = 1
  /// The part of the stated operations that prefill reaches.
  package var computeEfficiency = 0.5
  /// The part of the stated memory bandwidth that a step reaches.
  package var memoryEfficiency = 0.8
  /// Tokens of prefill and decode that one step takes at most (chunked prefill).
  package var stepTokenCount = 8192
  /// What a step costs besides: scheduling, launches, sampling.
  package var stepOverheadNanoseconds: Int64 = 3_000_000
  /// Requests in a batch at most.
  package var batchRequestCount = 256
  /// Device memory that is neither weights nor KV.
  package var reservedMemoryPart = 0.1
  /// Transfers run while the device computes; otherwise it waits for them.
  package var overlapsTransfers = true
  /// Restores only what comes sooner than it is computed.
  package var declinesSlowRestores = true

  package init(device: DeviceProfile, model: ModelProfile) {
    self.device = device
    self.model = model
  }

  /// KV blocks that fit beside the weights; 0 if the weights do not fit.
  package func slotCount(tokensPerBlock: Int) -> Int {
    let memory = device.memoryByteCount * Double(deviceCount) * (1 - reservedMemoryPart)
    let room = memory - model.weightByteCount
    return max(0, Int(room / Double(blockByteCount(tokensPerBlock: tokensPerBlock))))
  }

  package func blockByteCount(tokensPerBlock: Int) -> Int {
    model.kvBytesPerToken * tokensPerBlock
  }

  var linkBytesPerSecond: Double { device.linkBytesPerSecond * Double(deviceCount) }

  /// Time on the device for the prefill of `tokenCount` tokens behind `contextCount` others.
  func prefillNanoseconds(tokenCount: Int, contextCount: Int) -> Int64 {
    nanoseconds(
      operations: prefillOperations(tokenCount: tokenCount, contextCount: contextCount)
    )
  }

  func prefillOperations(tokenCount: Int, contextCount: Int) -> Double {
    let (tokens, context) = (Double(tokenCount), Double(contextCount))
    // Each token attends to all before it and to itself.
    let pairs = tokens * context + tokens * (tokens + 1) / 2
    return model.operationsPerToken * tokens + model.operationsPerTokenPair * pairs
  }

  func nanoseconds(operations: Double) -> Int64 {
    let rate = device.operationsPerSecond * Double(deviceCount) * computeEfficiency
    return Int64((operations / rate * 1e9).rounded())
  }

  /// A step is bound by computing or by reading weights and KV, whichever takes longer.
  func stepNanoseconds(operations: Double, kvTokenCount: Int) -> Int64 {
    let bytes = model.weightByteCount + Double(kvTokenCount * model.kvBytesPerToken)
    let rate = device.memoryBytesPerSecond * Double(deviceCount) * memoryEfficiency
    let reading = Int64((bytes / rate * 1e9).rounded())
    return stepOverheadNanoseconds + max(nanoseconds(operations: operations), reading)
  }
}

/// The store's tiers below the device.
package struct StoreProfile: Codable, Equatable, Sendable {
  /// One tier; each holds what the faster ones hold, and more.
  package struct TierProfile: Codable, Equatable, Sendable {
    package var byteCount: Int
    /// Bytes of a block here ÷ bytes of its KV.
    package var storedPart = 1.0
    package var readBytesPerSecond: Double
    package var latencyNanoseconds: Int64

    package init(byteCount: Int, readBytesPerSecond: Double, latencyNanoseconds: Int64) {
      self.byteCount = byteCount
      self.readBytesPerSecond = readBytesPerSecond
      self.latencyNanoseconds = latencyNanoseconds
    }

    func blockCount(blockByteCount: Int) -> Int {
      Int(Double(byteCount) / (Double(blockByteCount) * storedPart))
    }
  }

  package var host: TierProfile?
  package var disk: TierProfile?
  /// Takes what the disk tier evicts.
  package var archive: TierProfile?
  /// Outside the machine; holds what is sent to it.
  package var remote: RemoteProfile?
  package var ttlMilliseconds: Int64?

  package init() {}

  /// An engine outside the machine, over a network link that is used for nothing else.
  package struct RemoteProfile: Codable, Equatable, Sendable {
    package var byteCount: Int
    /// Of the link.
    package var bytesPerSecond: Double
    package var roundTripNanoseconds: Int64
    /// Only blocks that a second request has are sent; else all.
    package var sendsReusedOnly: Bool

    package init(
      byteCount: Int,
      bytesPerSecond: Double,
      roundTripNanoseconds: Int64,
      sendsReusedOnly: Bool
    ) {
      self.byteCount = byteCount
      self.bytesPerSecond = bytesPerSecond
      self.roundTripNanoseconds = roundTripNanoseconds
      self.sendsReusedOnly = sendsReusedOnly
    }
  }
}

/// Bandwidths of one machine, as `kvstore bench limits --save-profile` measured them.
package struct MachineProfile: Codable, Equatable, Sendable {
  package var copyBytesPerSecond: Double
  package var diskReadBytesPerSecond: Double
  package var diskWriteBytesPerSecond: Double

  package init(
    copyBytesPerSecond: Double,
    diskReadBytesPerSecond: Double,
    diskWriteBytesPerSecond: Double
  ) {
    self.copyBytesPerSecond = copyBytesPerSecond
    self.diskReadBytesPerSecond = diskReadBytesPerSecond
    self.diskWriteBytesPerSecond = diskWriteBytesPerSecond
  }

  private enum CodingKeys: String, CodingKey {
    case copyBytesPerSecond = "copy_bytes_per_second"
    case diskReadBytesPerSecond = "disk_read_bytes_per_second"
    case diskWriteBytesPerSecond = "disk_write_bytes_per_second"
  }
}
