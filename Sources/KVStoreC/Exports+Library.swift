internal import CKVStore

/// See kvstore.h.
@_cdecl("kvstore_version")
public func exportVersion() -> UInt32 { UInt32(KVSTORE_VERSION) }

/// See kvstore.h.
@_cdecl("kvstore_status_string")
public func exportStatusString(_ status: Int32) -> UnsafePointer<CChar>? {
  unsafe UnsafeRawPointer(Status.name(status).utf8Start).assumingMemoryBound(to: CChar.self)
}

/// See kvstore.h.
@_cdecl("kvstore_last_error_message")
public func exportLastErrorMessage() -> UnsafePointer<CChar>? { unsafe ckvstore_message() }
