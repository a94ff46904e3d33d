import KVCore

/// Lives of blocks in a `CatalogAudit`: rows, records of deadlines and the order of ends must say the same.
extension ReadTransaction {
  func auditExpiry(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ row: RowView,
    _ space: NamespaceRow,
    _ place: String,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    guard row.expiry != 0 else { return }
    if row.flags.contains(.idleExpiry) {
      if !space.facts.contains(.hasIdleExpiry) {
        audit.findings.add(.contradiction, place, "the namespace is said to have no idle lives")
      }
      if try deadlines(namespace, at.run, from: at.position, limit: 1).isEmpty {
        audit.findings.add(.missing, place, "no record says until when it lives")
      }
    } else if try !contains(.expiries, .expiry(Expiry(.absolute, row.expiry, namespace, at))) {
      audit.findings.add(.missing, place, "its end is not in table expiries")
    }
  }

  func auditDeadline(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.deadlines, key)
    guard let found = unsafe keyIntegers(key),
      let deadline = unsafe DeadlineRecord(position: found.at.position, rowBody(value))?.deadline
    else { return audit.findings.add(.malformed, place, "the row is too short") }
    let expiry = Expiry(.idle, deadline, found.namespace, found.at)
    if deadline < .max, try !contains(.expiries, .expiry(expiry)) {
      audit.findings.add(.missing, place, "its end is not in table expiries")
    }
    if try !containsRow(found.namespace, found.at) {
      audit.findings.add(.dangling, place, "the block is missing")
      return
    }
    let records = try deadlines(
      found.namespace,
      found.at.run,
      from: found.at.position,
      limit: 2
    )
    if records.count == 2, records[1].deadline >= deadline {
      audit.findings.add(.contradiction, place, "a later block of the run lives longer")
    }
    guard let parent = try parentOfRun(found.namespace, found.at.run), parent != .root else {
      return
    }
    let above = try deadlines(found.namespace, parent.run, from: parent.position, limit: 1).first
    // Expired blocks may be removed in any order.
    if above?.deadline ?? 0 < deadline, deadline >= (try lastCommittedNanoseconds()) {
      audit.findings.add(.contradiction, place, "the block before its run does not live as long")
    }
  }

  func auditExpiry(
    key: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.expiries, key)
    guard let expiry = unsafe Expiry(key) else {
      return audit.findings.add(.malformed, place, "the key is too short")
    }
    switch expiry.kind {
    case .absolute:
      let row = try rowIfSound(expiry.namespace, expiry.at)
      if let row, row.expiry != expiry.deadline || row.flags.contains(.idleExpiry) {
        audit.findings.add(.contradiction, place, "the block ends otherwise")
      } else if row == nil, try !containsRow(expiry.namespace, expiry.at) {
        audit.findings.add(.dangling, place, "the block is missing")
      }
    case .idle:
      let record = try deadlines(
        expiry.namespace,
        expiry.at.run,
        from: expiry.at.position,
        limit: 1
      ).first
      if record != DeadlineRecord(position: expiry.at.position, deadline: expiry.deadline) {
        audit.findings.add(.dangling, place, "no record has this deadline")
      }
    }
  }
}
