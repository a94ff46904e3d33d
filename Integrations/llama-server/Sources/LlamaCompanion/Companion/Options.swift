import KVStore

/// How a companion is started.
package struct Options: Sendable {
  package var serverURL: String
  package var host: String
  package var port: Int
  package var storePath: String
  /// What the server was given as `--slot-save-path`.
  package var slotFolder: String
  package var capacityBytes: Int
  package var hostBytes: Int
  package var apiKey: String?
  package var modelPath: String?
  /// A namespace of its own for each API key.
  package var separatesTenants: Bool
  package var tenantQuotaBytes: UInt64?
  /// How long a prefix lives without being used.
  package var idleSeconds: UInt64?
  package var recordPath: String?
  /// Where completions are written in their own words.
  package var recordTextPath: String?
  /// Whether texts of requests may be kept in memory, to tell why they missed.
  package var keepsTexts: Bool
  package var bodyByteCountMax: Int
  /// Whether what is found is restored even where computing it would be sooner.
  package var restoresAlways: Bool
  /// A tier outside this machine; none while its URL is empty.
  package var remote: RemoteConfiguration
  /// How long a prompt waits for what is there of it.
  package var remoteWaitNanoseconds: UInt64

  package init(
    serverURL: String,
    host: String,
    port: Int,
    storePath: String,
    slotFolder: String,
    capacityBytes: Int = 10 << 30,
    hostBytes: Int = 256 << 20,
    apiKey: String? = nil,
    modelPath: String? = nil,
    separatesTenants: Bool = false,
    tenantQuotaBytes: UInt64? = nil,
    idleSeconds: UInt64? = nil,
    recordPath: String? = nil,
    recordTextPath: String? = nil,
    keepsTexts: Bool = true,
    bodyByteCountMax: Int = 64 << 20,
    restoresAlways: Bool = false,
    remote: RemoteConfiguration = RemoteConfiguration(),
    remoteWaitNanoseconds: UInt64 = 2_000_000_000
  ) {
    self.serverURL = serverURL
    self.host = host
    self.port = port
    self.storePath = storePath
    self.slotFolder = slotFolder
    self.capacityBytes = capacityBytes
    self.hostBytes = hostBytes
    self.apiKey = apiKey
    self.modelPath = modelPath
    self.separatesTenants = separatesTenants
    self.tenantQuotaBytes = tenantQuotaBytes
    self.idleSeconds = idleSeconds
    self.recordPath = recordPath
    self.recordTextPath = recordTextPath
    self.keepsTexts = keepsTexts
    self.bodyByteCountMax = bodyByteCountMax
    self.restoresAlways = restoresAlways
    self.remote = remote
    self.remoteWaitNanoseconds = remoteWaitNanoseconds
  }
}
