internal import CKVStore
internal import KVCore
internal import KVStore

/// Statuses as the header numbers them.
enum Status {
  static let ok: kvstore_status_t = 0
  static let miss: kvstore_status_t = 1
  static let busy: kvstore_status_t = 2
  static let full: kvstore_status_t = 3
  static let parentMissing: kvstore_status_t = 4
  static let lapped: kvstore_status_t = 5
  static let running: kvstore_status_t = 6
  static let declined: kvstore_status_t = 7
  static let invalidArgument: kvstore_status_t = -1
  static let badHandle: kvstore_status_t = -2
  static let bufferTooSmall: kvstore_status_t = -3
  static let io: kvstore_status_t = -4
  static let noSpace: kvstore_status_t = -5
  static let corrupt: kvstore_status_t = -6
  static let version: kvstore_status_t = -7
  static let locked: kvstore_status_t = -8
  static let outOfMemory: kvstore_status_t = -9
  static let forked: kvstore_status_t = -10
  static let `internal`: kvstore_status_t = -11
  static let readOnly: kvstore_status_t = -12
  static let identity: kvstore_status_t = -13
  static let notAStore: kvstore_status_t = -14

  static func name(_ status: kvstore_status_t) -> StaticString {
    switch status {
    case ok: "KVSTORE_OK"
    case miss: "KVSTORE_MISS"
    case busy: "KVSTORE_BUSY"
    case full: "KVSTORE_FULL"
    case parentMissing: "KVSTORE_PARENT_MISSING"
    case lapped: "KVSTORE_LAPPED"
    case running: "KVSTORE_RUNNING"
    case declined: "KVSTORE_DECLINED"
    case invalidArgument: "KVSTORE_E_INVALID_ARGUMENT"
    case badHandle: "KVSTORE_E_BAD_HANDLE"
    case bufferTooSmall: "KVSTORE_E_BUFFER_TOO_SMALL"
    case io: "KVSTORE_E_IO"
    case noSpace: "KVSTORE_E_NO_SPACE"
    case corrupt: "KVSTORE_E_CORRUPT"
    case version: "KVSTORE_E_VERSION"
    case locked: "KVSTORE_E_LOCKED"
    case outOfMemory: "KVSTORE_E_OUT_OF_MEMORY"
    case forked: "KVSTORE_E_FORKED"
    case `internal`: "KVSTORE_E_INTERNAL"
    case readOnly: "KVSTORE_E_READ_ONLY"
    case identity: "KVSTORE_E_IDENTITY"
    case notAStore: "KVSTORE_E_NOT_A_STORE"
    default: "unknown status"
    }
  }

  static func of(_ error: StoreError) -> kvstore_status_t {
    switch error {
    case .invalidArgument: invalidArgument
    case .closed: badHandle
    case .forked: forked
    case .io: io
    case .noSpace: noSpace
    case .corrupt: corrupt
    case .versionMismatch: version
    case .locked: locked
    case .outOfMemory: outOfMemory
    case .readOnly: readOnly
    case .identityCollision: identity
    case .notAStore: notAStore
    case .full: full
    case .busy: busy
    case .poisoned: `internal`
    }
  }
}

/// Remembers `message` for this thread and answers `status`.
func fail(_ status: kvstore_status_t, _ message: String) -> kvstore_status_t {
  unsafe message.withCString { unsafe ckvstore_set_message($0) }
  return status
}

/// Remembers what `error` means for this thread and answers its status.
func fail(_ error: StoreError) -> kvstore_status_t { fail(Status.of(error), error.message) }

func failBadHandle(_ handle: OpaquePointer?, _ kind: String) -> kvstore_status_t {
  if unsafe HandleTable.isForked(handle) { return fail(.forked) }
  return fail(
    Status.badHandle,
    "not an open \(kind) handle: it is NULL, closed, or of another kind"
  )
}
