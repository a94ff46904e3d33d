internal import CLMDB
internal import Glibc
package import KVCore

/// The durable truth: what is stored, where, and since when; one LMDB environment.
///
/// Reads run on any thread beside each other and beside a write. Writes must all come from one thread of the process;
/// LMDB lets the processes write one after the other. A process may open a file only once.
@safe package final class Catalog: @unchecked Sendable {
  // `@unchecked`: the environment is thread-safe by LMDB's contract, everything else is immutable or in a Monitor.

  /// The format that this code reads and writes.
  ///
  /// Version 1 had no table `sessions`.
  package static let formatVersion: UInt32 = 2

  private let options: CatalogOptions
  package let meta: StoreMeta
  private let readers: Monitor<Readers>
  /// Where the last reservation ended; only a hint.
  private let slotHints = Monitor<[SlotClass: SlotHint]>([:])
  private let sectionNamespaces = Monitor(SectionNamespaces())
  private let written = Monitor(Written())

  private struct Written {
    var byteCount: UInt64 = 0
    /// After this process's last commit.
    var pages: CatalogPages?
  }

  /// Read transactions, begun once and renewed: a renewal takes no lock.
  private struct Readers {
    /// nil once it is closed, or while it could not be opened again.
    var environment: Environment?
    /// LMDB has given it up (it could not write its meta page): opened again when nobody is in it.
    var isBroken = false
    var idle: [IdleTransaction] = []
    var activeCount = 0
    var isClosed = false
  }

  /// What LMDB has open.
  @safe private struct Environment: @unchecked Sendable {
    let handle: OpaquePointer
    let tables: [MDB_dbi]
  }

  /// A reset transaction belongs to nobody, so it may change threads (MDB_NOTLS).
  @safe private struct IdleTransaction: @unchecked Sendable { let handle: OpaquePointer }

  private static let idleCountMax = 8

  /// Opens a catalog, and makes it first when there is none and `create` is given.
  package init(_ options: CatalogOptions, create: StoreMeta? = nil) throws(CatalogError) {
    let environment = unsafe try Self.openEnvironment(options)
    var tables: [MDB_dbi]
    do throws(CatalogError) {
      unsafe tables = try Self.openTables(environment, create: options.isReadOnly ? nil : create)
      unsafe meta = try Self.readMeta(environment, tables, isReadOnly: options.isReadOnly)
      if !options.isReadOnly { unsafe tables = try Self.addTables(environment, tables) }
    } catch {
      unsafe mdb_env_close(environment)
      throw error
    }
    readers = unsafe Monitor(Readers(environment: Environment(handle: environment, tables: tables)))
    self.options = options
  }

  deinit { close() }

  /// Ends the catalog.
  ///
  /// Reads that are under way end first; the last of them closes the environment.
  package func close() {
    readers.withLock { readers in
      readers.isClosed = true
      for reader in readers.idle { unsafe mdb_txn_abort(reader.handle) }
      readers.idle = []
    }
    closeWhenUnused()
  }

  private func closeWhenUnused() {
    let last = readers.withLock { readers -> Environment? in
      guard readers.isClosed, readers.activeCount == 0 else { return nil }
      defer { readers.environment = nil }
      return readers.environment
    }
    if let last { unsafe mdb_env_close(last.handle) }
  }

  // MARK: Transactions

  /// Runs `body` on a snapshot.
  ///
  /// Keep it short: an old snapshot keeps freed pages from being used again.
  package func read<R>(
    _ body: (ReadTransaction) throws(CatalogError) -> R
  ) throws(CatalogError) -> R {
    let environment = try enter()
    defer { leave() }
    let transaction = unsafe ReadTransaction(
      handle: try begin(environment),
      tables: environment.tables
    )
    defer {
      if let handle = unsafe transaction.takeHandle() { unsafe giveBack(handle) }
    }
    return try body(transaction)
  }

  /// The namespaces of side sections beside the one of this identity record.
  package func sectionNamespaces(
    ofRecord record: [UInt8]
  ) throws(CatalogError) -> [NamespaceRow] {
    try read { (transaction) throws(CatalogError) in
      var known = sectionNamespaces.withLock { $0 }
      try known.complete(transaction)
      sectionNamespaces.withLock { [known] in $0 = known }
      // Most stores have none: no digest, then.
      guard !known.byOwner.isEmpty else { return [] }
      var rows: [NamespaceRow] = []
      for section in known.byOwner[SHA256.hash(record)] ?? [] {
        if let row = try transaction.namespace(section.id) { rows.append(row) }
      }
      return rows
    }
  }

  /// Runs `body` and commits, synced; when it throws, or the commit fails, nothing has happened.
  ///
  /// `timeNanoseconds` is Unix time, for events and for the clock that never goes back; `owner` is the process, so that
  /// readers of the events know their own.
  package func write<R>(
    timeNanoseconds: UInt64,
    owner: OwnerID = OwnerID(rawValue: 0),
    _ body: (WriteTransaction) throws(CatalogError) -> R
  ) throws(CatalogError) -> R {
    guard !options.isReadOnly else { throw .readOnly }
    let information = unsafe try self.information()
    let mapByteCount = unsafe information.me_mapsize
    let pagesBefore = pagesBeforeWrite()
    let environment = try enter()
    defer { leave() }
    // Pages run short: those that a reader kept which was killed are to be had again. It asks for one record lock a process.
    if unsafe information.me_last_pgno >= mapByteCount / CatalogSalvage.pageByteCount / 4 * 3 {
      unsafe try check(mdb_reader_check(environment.handle, nil))
    }
    var handle: OpaquePointer?
    unsafe try checkBegun(mdb_txn_begin(environment.handle, nil, 0, &handle))
    guard let handle = unsafe handle else { throw .lmdb(code: MDB_PANIC) }
    let transaction = unsafe WriteTransaction(
      handle: handle,
      tables: environment.tables,
      timeNanoseconds: timeNanoseconds,
      owner: owner,
      mapByteCount: mapByteCount,
      eventCountMax: min(options.eventCountMax, CatalogOptions.eventCountMax(forMap: mapByteCount)),
      slotHints: slotHints.withLock { $0 },
      sectionNamespaces: sectionNamespaces.withLock { $0 }
    )
    do throws(CatalogError) {
      try transaction.loadCounters()
      let result = try body(transaction)
      try transaction.settle()
      if let handle = unsafe transaction.takeHandle() { unsafe try check(mdb_txn_commit(handle)) }
      noteWritten(since: pagesBefore)
      slotHints.withLock { $0 = transaction.slotHints }
      if transaction.sectionsAreComplete {
        sectionNamespaces.withLock { $0 = transaction.sectionNamespaces }
      }
      return result
    } catch {
      if let handle = unsafe transaction.takeHandle() { unsafe mdb_txn_abort(handle) }
      // Was it the commit that failed, and is LMDB's state gone with it? A renewal tells.
      if let handle = unsafe try? begin(environment) { unsafe giveBack(handle) }
      throw error == .io(errno: EIO) && isDiskFull(environment) ? .io(errno: ENOSPC) : error
    }
  }

  /// LMDB says of a write that was cut short that it failed, and not why.
  private func isDiskFull(_ environment: Environment) -> Bool {
    var descriptor: mdb_filehandle_t = -1
    var status = statvfs()
    guard unsafe mdb_env_get_fd(environment.handle, &descriptor) == MDB_SUCCESS,
      unsafe fstatvfs(descriptor, &status) == 0
    else { return false }
    return status.f_bavail < 4
  }

  /// A call begins; `leave` must follow unless this throws.
  private func enter() throws(CatalogError) -> Environment {
    try readers.withLock { (readers) throws(CatalogError) in
      guard !readers.isClosed else { throw .closed }
      if readers.isBroken { try reopen(&readers) }
      guard let environment = readers.environment else { throw .closed }
      readers.activeCount += 1
      return environment
    }
  }

  /// Opens the environment again; fails while somebody is still in the old one.
  private func reopen(_ readers: inout Readers) throws(CatalogError) {
    guard readers.activeCount == 0 else { throw .io(errno: EIO) }
    for reader in readers.idle { unsafe mdb_txn_abort(reader.handle) }
    readers.idle = []
    if let old = readers.environment {
      readers.environment = nil
      unsafe mdb_env_close(old.handle)
    }
    let handle = unsafe try Self.openEnvironment(options)
    do throws(CatalogError) {
      readers.environment = unsafe Environment(
        handle: handle,
        tables: try Self.openTables(handle, create: nil)
      )
    } catch {
      unsafe mdb_env_close(handle)
      throw error
    }
    readers.isBroken = false
  }

  /// Notices that LMDB has given the environment up, which it does when it could not write its meta page.
  private func checkBegun(_ code: Int32) throws(CatalogError) {
    guard code == MDB_PANIC else { return try check(code) }
    readers.withLock { $0.isBroken = true }
    throw .io(errno: EIO)
  }

  private func leave() {
    readers.withLock { $0.activeCount -= 1 }
    closeWhenUnused()
  }

  private func begin(_ environment: Environment) throws(CatalogError) -> OpaquePointer {
    if let idle = readers.withLock({ $0.idle.popLast() }) {
      let code = unsafe mdb_txn_renew(idle.handle)
      if code == MDB_SUCCESS { return unsafe idle.handle }
      unsafe mdb_txn_abort(idle.handle)
    }
    var handle: OpaquePointer?
    var code = unsafe mdb_txn_begin(environment.handle, nil, UInt32(MDB_RDONLY), &handle)
    if code == MDB_READERS_FULL {
      // Processes that were killed leave their slots taken.
      unsafe mdb_reader_check(environment.handle, nil)
      code = unsafe mdb_txn_begin(environment.handle, nil, UInt32(MDB_RDONLY), &handle)
    }
    try checkBegun(code)
    guard let handle = unsafe handle else { throw .lmdb(code: MDB_PANIC) }
    return unsafe handle
  }

  private func giveBack(_ handle: OpaquePointer) {
    unsafe mdb_txn_reset(handle)
    let idle = unsafe IdleTransaction(handle: handle)
    let isKept = readers.withLock { readers in
      guard !readers.isClosed, readers.idle.count < Self.idleCountMax else { return false }
      readers.idle.append(idle)
      return true
    }
    if !isKept { unsafe mdb_txn_abort(idle.handle) }
  }

  // MARK: Facts

  /// Number of the last commit of any process; cheap, so that others' commits can be noticed by asking.
  package func transactionID() throws(CatalogError) -> UInt64 {
    unsafe UInt64(bitPattern: Int64(try information().me_last_txnid))
  }

  /// Bytes that commits of this process wrote to the file; one beside which another process committed may be missing.
  package var bytesWritten: UInt64 { written.withLock { $0.byteCount } }

  private func pagesBeforeWrite() -> CatalogPages? {
    let known = written.withLock { $0.pages }
    if let known, known.transactionID == (try? transactionID()) { return known }
    return try? pages()
  }

  private func noteWritten(since before: CatalogPages?) {
    guard let before, let now = try? pages() else { return }
    written.withLock { written in
      written.pages = now
      guard now.transactionID == before.transactionID &+ 1 else { return }
      written.byteCount &+= now.bytesWritten(since: before)
    }
  }

  func pageCount() throws(CatalogError) -> Int { unsafe Self.pageCount(try information()) }

  /// Pages of the file, and no more than fit into the map, whatever LMDB's own page says.
  private static func pageCount(_ information: MDB_envinfo) -> Int {
    unsafe min(
      max(information.me_last_pgno, 0),
      max(information.me_mapsize, 0) / CatalogSalvage.pageByteCount
    ) + 1
  }

  /// LMDB's own table of free pages: each value is a list that begins with its length, each key a transaction's number.
  ///
  /// A length that the value has no room for is damage, and none.
  static func freePageCount(_ value: UnsafeRawBufferPointer) -> Int {
    guard value.count >= 8 else { return 0 }
    let count = unsafe value.loadUnaligned(as: UInt.self)
    return count <= UInt(value.count / 8) ? Int(count) : 0
  }

  /// Bytes that the catalog may grow to.
  package func mapByteCount() throws(CatalogError) -> Int { unsafe try information().me_mapsize }

  /// How full the catalog is; walks the list of free pages.
  package func usage() throws(CatalogError) -> CatalogUsage {
    let information = unsafe try self.information()
    return try read { transaction throws(CatalogError) in
      var statistics = MDB_stat()
      var freePageCount = 0
      let handle = unsafe try transaction.liveHandle()
      unsafe try check(mdb_stat(handle, 0, &statistics))
      var cursor = unsafe try TableCursor(handle, 0)
      var isThere = try cursor.first()
      while isThere {
        freePageCount += unsafe Self.freePageCount(cursor.value)
        isThere = try cursor.next()
      }
      let pageByteCount = Int(statistics.ms_psize)
      return unsafe CatalogUsage(
        mapByteCount: information.me_mapsize,
        fileByteCount: Self.pageCount(information) * pageByteCount,
        freeByteCount: min(freePageCount, Self.pageCount(information)) * pageByteCount
      )
    }
  }

  /// Clears the reader slots of processes that have died; returns how many there were.
  @discardableResult
  package func clearStaleReaders() throws(CatalogError) -> Int {
    let environment = try enter()
    defer { leave() }
    var deadCount: Int32 = 0
    unsafe try check(mdb_reader_check(environment.handle, &deadCount))
    return Int(deadCount)
  }

  /// Device and inode of the file that is open.
  package func fileIdentity() throws(CatalogError) -> (device: UInt64, inode: UInt64) {
    let environment = try enter()
    defer { leave() }
    var descriptor: mdb_filehandle_t = -1
    var status = stat()
    unsafe try check(mdb_env_get_fd(environment.handle, &descriptor))
    guard unsafe fstat(descriptor, &status) == 0 else { throw .io(errno: errno) }
    return (UInt64(status.st_dev), UInt64(status.st_ino))
  }

  private func information() throws(CatalogError) -> MDB_envinfo {
    let environment = try enter()
    defer { leave() }
    var information = unsafe MDB_envinfo()
    unsafe try check(mdb_env_info(environment.handle, &information))
    return unsafe information
  }
}
