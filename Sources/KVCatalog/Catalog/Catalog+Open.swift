internal import CLMDB
internal import Glibc
internal import KVCore

/// Opening: the environment, its tables, and the checks that it is ours and not newer.
extension Catalog {
  static func openEnvironment(_ options: CatalogOptions) throws(CatalogError) -> OpaquePointer {
    var created: OpaquePointer?
    unsafe try check(mdb_env_create(&created))
    guard let environment = unsafe created else { throw .lmdb(code: MDB_PANIC) }
    do throws(CatalogError) {
      if let mapByteCount = options.mapByteCount {
        guard mapByteCount > 0 else { throw .invalidArgument }
        unsafe try check(mdb_env_set_mapsize(environment, mapByteCount))
      }
      unsafe try check(mdb_env_set_maxreaders(environment, options.readerCountMax))
      unsafe try check(mdb_env_set_maxdbs(environment, 32))
      var flags = UInt32(MDB_NOSUBDIR | MDB_NOTLS)
      // A device's read-ahead may be megabytes, and a look-up touches a dozen pages all over the file:
      // with it, the first hit after opening read 75 MB of a catalog of 10^6 blocks. Walks ask for their own
      // (`RowReadAhead`).
      flags |= UInt32(MDB_NORDAHEAD)
      if options.isReadOnly { flags |= UInt32(MDB_RDONLY) }
      if options.durability == .buffered { flags |= UInt32(MDB_NOSYNC) }
      unsafe try open(environment, options, flags)
      unsafe try check(mdb_reader_check(environment, nil))
      unsafe try checkFile(environment, options.identity)
    } catch {
      unsafe mdb_env_close(environment)
      throw error
    }
    return unsafe environment
  }

  /// LMDB looks for its lock file under the name of the data file with `-lock` behind: so both are given other names for as long as it takes.
  private static func open(
    _ environment: OpaquePointer,
    _ options: CatalogOptions,
    _ flags: UInt32
  ) throws(CatalogError) {
    guard case .file(let lock) = options.lock else {
      let flags = options.lock == .none ? flags | UInt32(MDB_NOLOCK) : flags
      return unsafe try checkOpened(mdb_env_open(environment, options.path, flags, 0o600), options)
    }
    // LMDB would make one that nobody else has.
    guard unsafe access(lock, F_OK) == 0 else { throw .io(errno: errno) }
    var path = options.path
    if !path.hasPrefix("/") {
      guard let current = unsafe getcwd(nil, 0) else { throw .io(errno: errno) }
      defer { unsafe free(current) }
      path = unsafe String(cString: current) + "/" + path
    }
    let number = linkCount.withLock { count in
      count += 1
      return count
    }
    let folder = lock.lastIndex(of: "/").map { String(lock[..<$0]) } ?? "."
    let link = folder + "/" + "open-\(getpid())-\(number)"
    for (target, link) in [(path, link), (lock, link + "-lock")] {
      unsafe unlink(link)
      guard unsafe symlink(target, link) == 0 else { throw .io(errno: errno) }
    }
    defer {
      unsafe unlink(link)
      unsafe unlink(link + "-lock")
    }
    unsafe try checkOpened(mdb_env_open(environment, link, flags, 0o600), options)
  }

  /// LMDB's one answer to a file of somebody else's, to a damaged one, and to a lock or a read that it was refused.
  private static func checkOpened(
    _ code: Int32,
    _ options: CatalogOptions
  ) throws(CatalogError) {
    guard code == MDB_INVALID else { return try check(code) }
    switch soundMetaPageCount(options.path) {
    case 2: throw .io(errno: EIO)
    case 1: throw .corrupt(.file)
    default: throw .notACatalog
    }
  }

  /// How many of LMDB's two first pages say that they are such.
  private static func soundMetaPageCount(_ path: String) -> Int {
    let descriptor = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return 0 }
    defer { Glibc.close(descriptor) }
    var count = 0
    for offset in [0, sysconf(Int32(_SC_PAGESIZE))] {
      var word: UInt32 = 0
      // LMDB's magic number, behind the page's own header.
      let isRead = unsafe pread(descriptor, &word, 4, offset + 16) == 4
      if isRead, word == 0xBEEF_C0DE { count += 1 }
    }
    return count
  }

  private static let linkCount = Monitor<UInt64>(0)

  /// LMDB opens by path: another file may have come there since it was looked at.
  ///
  /// And a file that was cut short would end in a SIGBUS at the first touch of a missing page that is in use.
  private static func checkFile(
    _ environment: OpaquePointer,
    _ identity: FileIdentity?
  ) throws(CatalogError) {
    var information = unsafe MDB_envinfo()
    var statistics = MDB_stat()
    var descriptor: mdb_filehandle_t = -1
    var status = stat()
    unsafe try check(mdb_env_info(environment, &information))
    unsafe try check(mdb_env_stat(environment, &statistics))
    unsafe try check(mdb_env_get_fd(environment, &descriptor))
    guard unsafe fstat(descriptor, &status) == 0 else { throw .io(errno: errno) }
    let found = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    guard identity == nil || identity == found else { throw .io(errno: ESTALE) }
    let lastPage = unsafe information.me_last_pgno
    // A size of LMDB's is unsigned, an Int here is not: what is below 0 is as wrong as what is beyond the file.
    let pageByteCount = max(Int(statistics.ms_psize), 1)
    guard lastPage >= 0 else { throw .corrupt(.file) }
    guard
      lastPage < Int(status.st_size) / pageByteCount
        || MissingPages.areFree(
          descriptor,
          byteCount: Int(status.st_size),
          pageByteCount: pageByteCount
        )
    else { throw .corrupt(.file) }
  }

  /// The tables by their raw value.
  ///
  /// Makes them when the environment is empty and `create` is given.
  static func openTables(
    _ environment: OpaquePointer,
    create: StoreMeta?
  ) throws(CatalogError) -> [MDB_dbi] {
    if let tables = unsafe try openTables(environment, flags: UInt32(MDB_RDONLY), create: nil) {
      return tables
    }
    guard let create, let tables = unsafe try openTables(environment, flags: 0, create: create)
    else { throw .notACatalog }
    return tables
  }

  private static func openTables(
    _ environment: OpaquePointer,
    flags: UInt32,
    create: StoreMeta?
  ) throws(CatalogError) -> [MDB_dbi]? {
    var begun: OpaquePointer?
    unsafe try check(mdb_txn_begin(environment, nil, flags, &begun))
    guard let handle = unsafe begun else { throw .lmdb(code: MDB_PANIC) }
    var tables: [MDB_dbi]?
    do throws(CatalogError) {
      // Another process may have made the tables between our two transactions.
      tables = unsafe try openTables(handle, flags: 0)
      if tables == nil, let create {
        tables = unsafe try createTables(handle, create)
      }
    } catch {
      unsafe mdb_txn_abort(handle)
      throw error
    }
    // Handles of tables outlive the transaction only when it commits, which frees it in any case.
    unsafe try check(mdb_txn_commit(handle))
    return tables
  }

  /// Makes the tables that a store from before them does not have.
  static func addTables(
    _ environment: OpaquePointer,
    _ tables: [MDB_dbi]
  ) throws(CatalogError) -> [MDB_dbi] {
    guard tables.contains(ReadTransaction.noTable) else { return tables }
    var begun: OpaquePointer?
    unsafe try check(mdb_txn_begin(environment, nil, 0, &begun))
    guard let handle = unsafe begun else { throw .lmdb(code: MDB_PANIC) }
    var tables = tables
    do throws(CatalogError) {
      for table in Table.allCases
      where table.isAddedLater && tables[Int(table.rawValue)] == ReadTransaction.noTable {
        var identifier: MDB_dbi = 0
        unsafe try check(mdb_dbi_open(handle, table.name, UInt32(MDB_CREATE), &identifier))
        tables[Int(table.rawValue)] = identifier
      }
    } catch {
      unsafe mdb_txn_abort(handle)
      throw error
    }
    unsafe try check(mdb_txn_commit(handle))
    return tables
  }

  private static func createTables(
    _ handle: OpaquePointer,
    _ meta: StoreMeta
  ) throws(CatalogError) -> [MDB_dbi]? {
    var statistics = MDB_stat()
    var main: MDB_dbi = 0
    unsafe try check(mdb_dbi_open(handle, nil, 0, &main))
    unsafe try check(mdb_stat(handle, main, &statistics))
    // Somebody else's environment is left alone.
    guard statistics.ms_entries == 0 else { throw .notACatalog }
    guard let tables = unsafe try openTables(handle, flags: UInt32(MDB_CREATE)) else { return nil }
    let transaction = unsafe WriteTransaction(handle: handle, tables: tables)
    defer { _ = unsafe transaction.takeHandle() }
    try transaction.createMeta(meta)
    return tables
  }

  private static func openTables(
    _ handle: OpaquePointer,
    flags: UInt32
  ) throws(CatalogError) -> [MDB_dbi]? {
    // By raw value; those that this version does not know are never asked for.
    var tables = [MDB_dbi](repeating: 0, count: Table.count)
    var isFirst = true
    for table in Table.allCases {
      var identifier: MDB_dbi = 0
      let code = unsafe mdb_dbi_open(handle, table.name, flags, &identifier)
      if code == MDB_NOTFOUND, table.isAddedLater {
        tables[Int(table.rawValue)] = ReadTransaction.noTable
        continue
      }
      if code == MDB_NOTFOUND {
        // None is an empty environment or a foreign one; some is an older format, or damage.
        guard isFirst else {
          if table.rawValue > Table.meta.rawValue {
            let transaction = unsafe ReadTransaction(handle: handle, tables: tables)
            defer { _ = unsafe transaction.takeHandle() }
            _ = try format(transaction)
          }
          throw .corrupt(.meta)
        }
        return nil
      }
      if code == MDB_INCOMPATIBLE { throw .notACatalog }
      try check(code)
      tables[Int(table.rawValue)] = identifier
      isFirst = false
    }
    return tables
  }

  /// Feature bits of the catalog; throws when its version is another one.
  private static func format(_ transaction: ReadTransaction) throws(CatalogError) -> FormatRow? {
    guard let value = unsafe try transaction.getChecked(.meta, .meta(.format)) else { return nil }
    guard let format = unsafe FormatRow(value) else { throw .corrupt(.meta) }
    guard format.version == formatVersion else { throw .versionMismatch(found: format.version) }
    return format
  }

  /// Checks version and feature bits, then reads what was decided when the store was made.
  static func readMeta(
    _ environment: OpaquePointer,
    _ tables: [MDB_dbi],
    isReadOnly: Bool
  ) throws(CatalogError) -> StoreMeta {
    var begun: OpaquePointer?
    unsafe try check(mdb_txn_begin(environment, nil, UInt32(MDB_RDONLY), &begun))
    guard let handle = unsafe begun else { throw .lmdb(code: MDB_PANIC) }
    defer { unsafe mdb_txn_abort(handle) }
    let transaction = unsafe ReadTransaction(handle: handle, tables: tables)
    defer { _ = unsafe transaction.takeHandle() }

    guard let format = try format(transaction),
      let store = unsafe try transaction.getChecked(.meta, .meta(.store)),
      let config = unsafe try transaction.getChecked(.meta, .meta(.config))
    else { throw .corrupt(.meta) }
    // This version knows no feature bits. Unknown compatible ones do no harm.
    guard format.incompatible == 0, isReadOnly || format.readOnlyCompatible == 0 else {
      throw .versionMismatch(found: formatVersion)
    }
    guard let meta = unsafe StoreMeta(store: store, config: config) else { throw .corrupt(.meta) }
    return meta
  }
}
