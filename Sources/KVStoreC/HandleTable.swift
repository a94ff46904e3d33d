internal import KVCore
internal import KVStore

/// The open handles of this process: numbers in pointer's clothes, never dereferenced.
///
/// A handle is generation (32 bits) ‖ slot (24 bits) ‖ forks (4 bits) ‖ kind (3 bits) ‖ 1, so that a closed one, one of another kind, or
/// any other pointer is told from an open one; and one of the process that this one was forked from, without a look into a table that
/// another thread had locked at the fork.
enum HandleTable {
  enum Kind: UInt {
    case store = 1
    case namespace = 2
    case operation = 3
    case view = 4
    case reservation = 5
    case device = 6
    case session = 7
  }

  private struct Slot {
    var generation: UInt32 = 0
    var object: (any Sendable & AnyObject)?
  }

  private struct State {
    var slots: [Slot] = []
    var free: [Int] = []
  }

  private static let state = ForkLocal { State() }

  static func insert(_ object: any Sendable & AnyObject, kind: Kind) -> OpaquePointer? {
    unsafe state.withLock { state in
      let index: Int
      if let reused = state.free.popLast() {
        index = reused
      } else {
        index = state.slots.count
        guard index < slotCountMax else { return nil }
        state.slots.append(Slot())
      }
      state.slots[index].generation &+= 1
      state.slots[index].object = object
      let bits =
        UInt(state.slots[index].generation) << 32 | UInt(index) << 8 | forkBits << 4
        | kind.rawValue << 1 | 1
      return unsafe OpaquePointer(bitPattern: bits)
    }
  }

  static func store(_ handle: OpaquePointer?) -> Store? {
    unsafe find(handle, kind: .store) as? Store
  }

  static func namespace(_ handle: OpaquePointer?) -> Namespace? {
    unsafe find(handle, kind: .namespace) as? Namespace
  }

  static func operation(_ handle: OpaquePointer?) -> Operation? {
    unsafe find(handle, kind: .operation) as? Operation
  }

  static func view(_ handle: OpaquePointer?) -> View? {
    unsafe find(handle, kind: .view) as? View
  }

  static func session(_ handle: OpaquePointer?) -> Session? {
    unsafe find(handle, kind: .session) as? Session
  }

  static func reservation(_ handle: OpaquePointer?) -> Reservation? {
    unsafe find(handle, kind: .reservation) as? Reservation
  }

  static func device(_ handle: OpaquePointer?) -> Device? {
    unsafe find(handle, kind: .device) as? Device
  }

  /// Takes the handle out; nil when it is not an open one of this kind.
  static func remove(_ handle: OpaquePointer?, kind: Kind) -> (any Sendable & AnyObject)? {
    guard let index = unsafe slotIndex(handle, kind: kind) else { return nil }
    let generation = UInt32(truncatingIfNeeded: UInt(bitPattern: handle) >> 32)
    return state.withLock { state in
      guard index < state.slots.count, state.slots[index].generation == generation,
        let object = state.slots[index].object
      else { return nil }
      state.slots[index].object = nil
      state.free.append(index)
      return object
    }
  }

  /// Closes the handles of what belongs to a store that is closed.
  static func removeAll(of store: Store) {
    state.withLock { state in
      for index in state.slots.indices {
        guard let owned = state.slots[index].object as? any StoreOwned, owned.belongs(to: store)
        else { continue }
        state.slots[index].object = nil
        state.free.append(index)
      }
    }
  }

  private static func find(_ handle: OpaquePointer?, kind: Kind) -> (any Sendable & AnyObject)? {
    guard let index = unsafe slotIndex(handle, kind: kind) else { return nil }
    let generation = UInt32(truncatingIfNeeded: UInt(bitPattern: handle) >> 32)
    return state.withLock { state in
      guard index < state.slots.count, state.slots[index].generation == generation else {
        return nil
      }
      return state.slots[index].object
    }
  }

  private static func slotIndex(_ handle: OpaquePointer?, kind: Kind) -> Int? {
    let bits = UInt(bitPattern: handle)
    guard bits & 1 == 1, (bits >> 1) & 7 == kind.rawValue, (bits >> 4) & 15 == forkBits else {
      return nil
    }
    return Int((bits >> 8) & 0xFF_FFFF)
  }

  private static let slotCountMax = 1 << 24

  /// The last ones of the number of forks.
  private static var forkBits: UInt { UInt(truncatingIfNeeded: ForkCount.current) & 15 }

  /// Whether it may be a handle of a process that this one was forked from.
  static func isForked(_ handle: OpaquePointer?) -> Bool {
    let bits = UInt(bitPattern: handle)
    return ForkCount.current > 0 && bits & 1 == 1 && (bits >> 4) & 15 != forkBits
  }
}

/// Something whose handle ends with its store's.
protocol StoreOwned {
  func belongs(to store: Store) -> Bool
}

extension Namespace: StoreOwned {}

extension Session: StoreOwned {}
