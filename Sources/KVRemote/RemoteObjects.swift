/// Named objects outside this machine: what a remote tier is made of.
///
/// Neither side of this seam knows the other: a client (RESP, S3) knows no blocks, and who stores chunks knows no sockets.
/// Thread-safe: several threads may call at once. No call is made by a thread of an engine. Each call ends by its deadline, which counts in nanoseconds of
/// `monotonicNanoseconds()`, whatever the other side does.
package protocol RemoteObjects: AnyObject, Sendable {
  /// Which of the names exist, in their order.
  ///
  /// One round trip, however many there are: all nodes of a cluster are asked at once.
  func exist(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Bool]

  /// Reads whole objects; their requests are sent together.
  ///
  /// - Parameters:
  ///   - names: of the objects, in the order in which they are wanted.
  ///   - deadline: of the whole call.
  ///   - memory: gets the index of an object and its byte count, and says where its bytes go: as many bytes at least; nil, and the object is read past.
  ///   - done: gets the index of each object once, in any order, with how it went; for all of them also when the call throws.
  ///     Both closures are called on the calling thread, and nothing writes into an object's memory once it is done.
  /// - Throws: what ended it early; which objects had come is what `done` heard.
  func get(
    _ names: [RemoteName],
    deadline: UInt64,
    memory: (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?,
    done: (_ index: Int, RemoteRead) -> Void
  ) throws(RemoteError)

  /// Writes an object in one atomic step, if none has the name.
  ///
  /// - Parameters:
  ///   - name: of the object.
  ///   - pieces: its bytes; they stay valid and unchanged until the call returns.
  ///   - timeToLiveMilliseconds: after which it may leave; nil for ever.
  ///   - deadline: of the call. After it nobody knows whether the object was stored.
  /// - Returns: whether it was stored, or there was one.
  /// - Throws: why it is not known to be there.
  func putIfAbsent(
    _ name: RemoteName,
    pieces: [UnsafeRawBufferPointer],
    timeToLiveMilliseconds: UInt64?,
    deadline: UInt64
  ) throws(RemoteError) -> RemoteWrite

  /// Makes objects live at least that long from now; never shortens a life. Those that are absent stay so.
  func extend(
    _ names: [RemoteName],
    timeToLiveMilliseconds: UInt64,
    deadline: UInt64
  ) throws(RemoteError)

  /// Removes objects; returns how many there were.
  func remove(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> Int

  /// Names that begin with a prefix, a page at a time.
  ///
  /// Every object that exists from the first page to the last is named at least once; some may be named twice, and a page may be empty.
  ///
  /// - Parameters:
  ///   - prefix: what the names begin with.
  ///   - cursor: nil for the first page, then what the page before gave as `next`.
  ///   - deadline: of the call.
  /// - Returns: a page, and where the next one begins; nil after the last.
  /// - Throws: why there is no page; the cursor still holds.
  func list(
    prefix: RemoteName,
    after cursor: ListCursor?,
    deadline: UInt64
  ) throws(RemoteError) -> (names: [RemoteName], next: ListCursor?)

  /// What the other side says of itself.
  func information(deadline: UInt64) throws(RemoteError) -> RemoteInformation

  /// Ends its connections; calls under way end soon, later ones fail as `closed`.
  func close()
}

/// The name of an object: printable ASCII without spaces, its parts separated by colons, 256 bytes at most.
///
/// A client for servers whose names are paths may write another separator.
package struct RemoteName: Hashable, Sendable, CustomStringConvertible {
  /// As it is sent.
  package let text: String

  package init(_ text: String) { self.text = text }

  package var description: String { text }
}

/// How reading one object went.
package enum RemoteRead: Sendable, Equatable {
  /// So many bytes, all of it, lie in the memory that was given.
  case whole(byteCount: Int)
  /// There is no object of that name.
  case absent
  /// No memory was given for it.
  case skipped
  /// It did not come, or not all of it; the memory holds anything.
  case failed(RemoteError)
}

/// What became of an object that was to be written if absent.
package enum RemoteWrite: Sendable, Equatable {
  case stored
  case existed
}

/// Why a call failed; each has a count of its own in the statistics.
package enum RemoteError: Error, Sendable, Equatable {
  /// No connection, or it ended; the system's reason.
  case unreachable(errno: Int32)
  /// The deadline passed.
  case timedOut
  /// It takes no more bytes.
  case full
  /// It does not know us, or does not let us do that.
  case unauthorized
  /// It answers and cannot serve for now: loading, failing over, read-only, a cluster that is down.
  case unavailable
  /// Larger than it takes.
  case tooLarge
  /// It said no, for a reason of its own; its first words, without anything that we sent.
  case refused(String)
  /// What came is not its protocol; what was wrong, for a log.
  case protocolViolation(String)
  /// The connection cannot be made as safe as the settings ask.
  case insecure(String)
  /// `close` was called.
  case closed

  /// The other side did not answer, or not as itself: what a circuit breaker counts.
  package var isOfTransport: Bool {
    switch self {
    case .unreachable, .timedOut, .unavailable, .protocolViolation, .insecure: true
    case .full, .unauthorized, .tooLarge, .refused, .closed: false
    }
  }
}

/// Where a listing goes on; only the client that made it can read it.
package struct ListCursor: Sendable, Equatable {
  package let text: String

  package init(_ text: String) { self.text = text }
}

/// What a server says of itself; nil where it does not.
package struct RemoteInformation: Sendable, Equatable {
  /// Its name and version, for people: "valkey 9.1.2".
  package var version = ""
  package var usedByteCount: UInt64?
  /// What it may use; nil for no bound.
  package var byteCountMax: UInt64?
  /// What it does when that is used up, in its own words: "allkeys-lru", "noeviction".
  package var evictionPolicy: String?
  /// "master", "replica"; that of the first node of a cluster.
  package var role: String?
  /// Its nodes as "host:port"; one outside a cluster.
  package var nodes: [String] = []

  package init() {}
}
