package import KVCore

/// A conversation or agent run, as the catalog keeps it.
package struct SessionRow: Sendable, Equatable {
  package var id: UInt64
  package var namespace: NamespaceID
  package var isEnded = false
  /// Unix time, nanoseconds.
  package var createdNanoseconds: UInt64
  package var lastNanoseconds: UInt64
  package var stepCount: UInt32 = 0
  package var tokenCount: UInt64 = 0
  package var matchedTokenCount: UInt64 = 0
  package var computedTokenCount: UInt64 = 0
  /// The caller's, at most 64 bytes of UTF-8.
  package var name: [UInt8]
  /// The last stored block of its last step's prompt, as far as that is known.
  package var head: BlockPosition?

  package static let nameByteCountMax = 64

  package init(id: UInt64, namespace: NamespaceID, createdNanoseconds: UInt64, name: [UInt8]) {
    self.id = id
    self.namespace = namespace
    self.createdNanoseconds = createdNanoseconds
    lastNanoseconds = createdNanoseconds
    self.name = name
  }
}

/// One request of a session.
package struct SessionStepRow: Sendable, Equatable {
  /// From 1 on.
  package var number: UInt32
  package var timeNanoseconds: UInt64
  package var tokenCount: UInt32
  package var matchedTokenCount: UInt32
  package var computedTokenCount: UInt32
  /// Tokens of the step before, and how many leading ones this one has as well.
  package var previousTokenCount: UInt32
  package var commonTokenCount: UInt32
  /// What ended the stored prefix, as `explain` numbers it.
  package var cause: UInt32

  package init(
    number: UInt32,
    timeNanoseconds: UInt64,
    tokenCount: UInt32,
    matchedTokenCount: UInt32,
    computedTokenCount: UInt32,
    previousTokenCount: UInt32,
    commonTokenCount: UInt32,
    cause: UInt32
  ) {
    self.number = number
    self.timeNanoseconds = timeNanoseconds
    self.tokenCount = tokenCount
    self.matchedTokenCount = matchedTokenCount
    self.computedTokenCount = computedTokenCount
    self.previousTokenCount = previousTokenCount
    self.commonTokenCount = commonTokenCount
    self.cause = cause
  }
}

extension WriteTransaction {
  /// Sessions that are kept, and steps of each; the oldest go first.
  package static var sessionCountMax: Int { 1_024 }
  package static var sessionStepCountMax: Int { 1_024 }

  /// Rows of sessions that fit into a 32nd of the map; one takes up to 120 bytes of it, by how full LMDB's pages are.
  package static func sessionRowCountMax(forMap mapByteCount: Int) -> Int {
    max(16, mapByteCount / 32 / 120)
  }

  /// Writes a session's state and its new steps; what is oldest goes when there are more than `rowCountMax` rows.
  package func putSession(
    _ session: SessionRow,
    steps: [SessionStepRow],
    rowCountMax: Int = .max
  ) throws(CatalogError) {
    let stepCountMax = UInt32(min(Self.sessionStepCountMax, rowCountMax / 2))
    let isNew = try !contains(.sessions, .session(session.id, step: 0))
    try put(.sessions, .session(session.id, step: 0), session.encoded)
    for step in steps {
      try put(.sessions, .session(session.id, step: step.number), step.encoded)
      if step.number > stepCountMax {
        try delete(.sessions, .session(session.id, step: step.number - stepCountMax))
      }
    }
    var rowCount = try entryCount(.sessions)
    guard isNew || rowCount > rowCountMax else { return }
    let ids = try sessionIDs()
    for (index, id) in ids.enumerated() where id != session.id {
      guard ids.count - index > Self.sessionCountMax || rowCount > rowCountMax else { break }
      try deleteSession(id)
      rowCount = try entryCount(.sessions)
    }
  }

  private func deleteSession(_ id: UInt64) throws(CatalogError) {
    var numbers: [UInt32] = [0]
    try forEachSessionStep(id, from: 1) { step in
      numbers.append(step.number)
      return true
    }
    for number in numbers { try delete(.sessions, .session(id, step: number)) }
  }
}

extension ReadTransaction {
  /// The numbers of all sessions, oldest first.
  package func sessionIDs() throws(CatalogError) -> [UInt64] {
    var ids: [UInt64] = []
    var cursor = try cursor(.sessions)
    var isThere = try cursor.first()
    while isThere, let found = unsafe sessionKey(cursor.key) {
      ids.append(found.id)
      guard found.id < .max else { break }
      isThere = try cursor.seek(.session(found.id + 1, step: 0))
    }
    return ids
  }

  package func session(_ id: UInt64) throws(CatalogError) -> SessionRow? {
    guard let value = unsafe try getChecked(.sessions, .session(id, step: 0)) else { return nil }
    guard let row = unsafe SessionRow(id, value) else { throw .corrupt(.session) }
    return row
  }

  /// Walks the steps of a session, from a number on, until `body` returns false.
  package func forEachSessionStep(
    _ id: UInt64,
    from first: UInt32,
    _ body: (SessionStepRow) -> Bool
  ) throws(CatalogError) {
    var cursor = try cursor(.sessions)
    var isThere = try cursor.seek(.session(id, step: max(1, first)))
    while isThere, let found = unsafe sessionKey(cursor.key), found.id == id {
      let value = unsafe try cursor.checkedBody(.sessions)
      guard let step = unsafe SessionStepRow(found.step, value) else { throw .corrupt(.session) }
      guard body(step) else { return }
      isThere = try cursor.next()
    }
  }
}

extension SessionRow {
  /// Nil for the row of a step.
  init?(key: [UInt8], _ body: UnsafeRawBufferPointer) {
    guard let (id, step) = unsafe key.withUnsafeBytes({ unsafe sessionKey($0) }), step == 0 else {
      return nil
    }
    unsafe self.init(id, body)
  }

  fileprivate init?(_ id: UInt64, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let flags = reader.read(UInt32.self),
      let created = reader.read(UInt64.self), let last = reader.read(UInt64.self),
      let tokens = reader.read(UInt64.self), let matched = reader.read(UInt64.self),
      let computed = reader.read(UInt64.self), let steps = reader.read(UInt32.self),
      let nameByteCount = reader.read(UInt32.self), let name = reader.readBytes(Int(nameByteCount))
    else { return nil }
    self.init(
      id: id,
      namespace: NamespaceID(rawValue: namespace),
      createdNanoseconds: created,
      name: name
    )
    isEnded = flags & 1 != 0
    lastNanoseconds = last
    tokenCount = tokens
    matchedTokenCount = matched
    computedTokenCount = computed
    stepCount = steps
    // Rows from before this was noted end here.
    head = reader.readPosition()
  }

  fileprivate var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 80 + name.count)
    writer.append(namespace.rawValue)
    writer.append(UInt32(isEnded ? 1 : 0))
    writer.append(createdNanoseconds)
    writer.append(lastNanoseconds)
    writer.append(tokenCount)
    writer.append(matchedTokenCount)
    writer.append(computedTokenCount)
    writer.append(stepCount)
    writer.append(UInt32(name.count))
    writer.append(contentsOf: name)
    if let head { writer.append(head) }
    return writer.bytes
  }
}

extension SessionStepRow {
  fileprivate init?(_ number: UInt32, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let time = reader.read(UInt64.self), let tokens = reader.read(UInt32.self),
      let matched = reader.read(UInt32.self), let computed = reader.read(UInt32.self),
      let previous = reader.read(UInt32.self), let common = reader.read(UInt32.self),
      let cause = reader.read(UInt32.self)
    else { return nil }
    self.init(
      number: number,
      timeNanoseconds: time,
      tokenCount: tokens,
      matchedTokenCount: matched,
      computedTokenCount: computed,
      previousTokenCount: previous,
      commonTokenCount: common,
      cause: cause
    )
  }

  fileprivate var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 32)
    writer.append(timeNanoseconds)
    writer.append(tokenCount)
    writer.append(matchedTokenCount)
    writer.append(computedTokenCount)
    writer.append(previousTokenCount)
    writer.append(commonTokenCount)
    writer.append(cause)
    return writer.bytes
  }
}
