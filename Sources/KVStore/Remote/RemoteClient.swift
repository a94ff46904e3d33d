internal import KVCore
internal import KVFile
internal import KVRedis
internal import KVRemote

/// Makes the client for a URL: the only place of the store that knows what servers there are.
enum RemoteClient {
  /// Connects to nothing: a server that is away is no reason not to open a store.
  static func open(_ configuration: RemoteConfiguration) throws(StoreError) -> any RemoteObjects {
    if let objects = configuration.objects { return objects }
    var redis: RedisConfiguration
    do throws(RedisConfiguration.InvalidURL) {
      redis = try RedisConfiguration(url: configuration.url)
    } catch {
      throw .invalidArgument(.remote)
    }
    if !configuration.caFile.isEmpty {
      guard redis.tls != nil else { throw .invalidArgument(.remote) }
      redis.tls?.certificateAuthorityFile = configuration.caFile
    }
    if !configuration.credentialsFile.isEmpty {
      do throws(RedisCredentials.FileProblem) {
        redis.credentials = try RedisCredentials(file: configuration.credentialsFile)
      } catch {
        throw .invalidArgument(.remoteCredentials)
      }
    }
    do throws(RemoteError) { return try RedisObjects(redis) } catch {
      throw .invalidArgument(.remoteTLS)
    }
  }

  /// Where it is, for people: hosts without user, path and scheme's rest.
  static func place(_ configuration: RemoteConfiguration) -> String {
    guard let redis = try? RedisConfiguration(url: configuration.url) else { return "" }
    let hosts = redis.endpoints.map(\.description).joined(separator: ",")
    return (redis.tls == nil ? "redis://" : "rediss://") + hosts
  }

  /// What the key file holds; nil without one.
  static func key(_ configuration: RemoteConfiguration) throws(StoreError) -> RemoteKey? {
    var contents = configuration.key
    if contents == nil, !configuration.keyFile.isEmpty {
      do throws(PrivateFileError) {
        contents = try readPrivateFile(
          configuration.keyFile,
          byteCountMax: RemoteKey.byteCountMax + 2
        )
      } catch {
        throw .invalidArgument(.remoteKey)
      }
    }
    guard let contents else { return nil }
    guard let key = RemoteKey(contents) else { throw .invalidArgument(.remoteKey) }
    return key
  }
}
