import KVCatalog
import KVCore

/// The catalog that the fuzzer starts from: two namespaces, runs that fork, slots used and reserved, stamps, events, sessions.
enum CatalogSample {
  static let meta = StoreMeta(
    storeUUID: Array(0..<16),
    createdNanoseconds: 77,
    saltKey: Array(100..<132),
    capacityBytes: 1 << 30,
    catalogBytes: 16 << 20,
    inlinePayloadBytesMax: 16_384,
    slotFileBytes: 1 << 20
  )
  static let owner = OwnerID(rawValue: 9)

  static func fill(_ catalog: Catalog) throws(CatalogError) {
    try catalog.write(timeNanoseconds: 1_000) { (transaction) throws(CatalogError) in
      for (number, slotByteCount) in [(1, UInt32(8192)), (2, 0)] {
        let namespace = try transaction.createNamespace(
          NamespaceRow(
            rootKey: BlockKey(high: 0, low: UInt64(number)),
            identityRecord: [UInt8(number)],
            slotByteCount: slotByteCount,
            headerByteCount: 4096,
            wordsPerBlock: 1,
            quotaBytes: number == 1 ? 1 << 20 : 0
          )
        )
        var slots: [SlotAddress] = []
        if slotByteCount > 0 {
          _ = try transaction.createSlotFile(
            tier: .disk,
            slotByteCount: slotByteCount,
            slotCount: 32
          )
          slots = try transaction.reserveSlots(
            tier: .disk,
            slotByteCount: slotByteCount,
            count: 16,
            owner: owner
          )
        }
        // A trunk of four blocks, a branch from its second one, and a tree of its own.
        var path = [BlockPosition.root]
        for word in UInt32(0)..<8 {
          let parent = word == 4 ? path[2] : word == 6 ? .root : path[path.count - 1]
          let outcome = try publish(
            transaction,
            namespace,
            word: word + UInt32(number) * 100,
            parent: parent,
            slot: slots.isEmpty ? nil : slots[Int(word)]
          )
          if case .stored(let position) = outcome { path.append(position) }
        }
        _ = try transaction.touch(namespace, pathEnd: path[4])
        let session = SessionRow(
          id: UInt64(number),
          namespace: namespace,
          createdNanoseconds: 1_000,
          name: Array("agent".utf8)
        )
        try transaction.putSession(session, steps: (1...3).map(step))
      }
    }
  }

  static func step(_ number: UInt32) -> SessionStepRow {
    SessionStepRow(
      number: number,
      timeNanoseconds: 1_000,
      tokenCount: 40,
      matchedTokenCount: 30,
      computedTokenCount: 10,
      previousTokenCount: 40,
      commonTokenCount: 35,
      cause: 2
    )
  }

  static func publish(
    _ transaction: WriteTransaction,
    _ namespace: NamespaceID,
    word: UInt32,
    parent: BlockPosition,
    slot: SlotAddress?
  ) throws(CatalogError) -> PublishOutcome {
    var bytes = ByteWriter()
    bytes.append(word)
    let words = bytes.bytes
    let payload: [UInt8] = [1, 2, 3]
    let place = BlockPlace(
      tier: .disk,
      isInline: slot == nil,
      file: slot?.file ?? 0,
      slot: slot?.slot ?? 0,
      storedByteCount: 900,
      generation: Generation(rawValue: UInt64(word)),
      headerChecksum: 2
    )
    let result: Result<PublishOutcome, CatalogError> = unsafe words.withUnsafeBytes { words in
      unsafe payload.withUnsafeBytes { payload in
        let block = unsafe NewBlock(
          blockKey: key(word),
          parent: parent,
          words: words,
          extra: UnsafeRawBufferPointer(start: nil, count: 0),
          payloadByteCount: 1000,
          createdSeconds: 7,
          place: place,
          inlinePayload: slot == nil ? payload : nil
        )
        return Result { () throws(CatalogError) in
          try transaction.publish(namespace, block, owner: owner)
        }
      }
    }
    return try result.get()
  }

  static func key(_ word: UInt32) -> BlockKey { BlockKey(high: 5, low: UInt64(word)) }
}
