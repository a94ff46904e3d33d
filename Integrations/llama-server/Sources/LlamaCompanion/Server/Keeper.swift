import Glibc
import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOPosix

/// Knows which server we stand beside right now, and has its part of the store open.
actor Keeper {
  enum Standing: Sendable {
    case away(String)
    case attached(Attachment)
    /// It answers, and its requests are passed on as they are.
    case notHelped(String, properties: [UInt8])
  }

  private let attacher: Attacher
  private let slots: SlotTable
  private let options: Options
  private let logger: Logger
  private let threads: NIOThreadPool
  private(set) var standing = Standing.away("not asked yet")
  private var running: Task<Standing, Never>?
  private var stores: [[UInt8]: PrefixStore] = [:]
  private(set) var store: Store?
  private(set) var storeProblem: String?
  /// What is wrong with the settings of the remote tier.
  private(set) var remoteMistake: String?
  private var storeTriedNanoseconds: UInt64 = 0
  private(set) var attachCount = 0
  private var attachTriedNanoseconds: UInt64 = 0
  /// After so long it is tried again.
  private var retryNanoseconds: UInt64 = 0
  /// Restores have disappointed: until the server is started anew.
  private var hasGivenUp = false

  init(
    _ attacher: Attacher,
    _ slots: SlotTable,
    _ options: Options,
    _ threads: NIOThreadPool,
    _ logger: Logger
  ) {
    self.attacher = attacher
    self.slots = slots
    self.options = options
    self.threads = threads
    self.logger = logger
  }

  /// The server as it is now: asked each time, along with the first that a request needs to know.
  ///
  /// A server that was started anew is another one until it was looked at again.
  func current() async -> Standing {
    if let running { return await running.value }
    let task = Task { await self.look() }
    running = task
    let result = await task.value
    running = nil
    return result
  }

  /// A look between requests. One that sleeps is not woken: its properties are asked for alone, which it answers in its sleep.
  func glance() async -> Standing {
    if running == nil, case .attached(let attachment) = standing,
      FileStamp(attachment.model.path) == attachment.model,
      let properties = try? await attacher.server.properties(),
      properties.raw == attachment.properties[...]
    {
      return standing
    }
    return await current()
  }

  private func look() async -> Standing {
    let before = standing
    do {
      let properties = try await attacher.server.properties()
      switch before {
      case .attached(let attachment):
        if properties.raw == attachment.properties[...],
          FileStamp(attachment.model.path) == attachment.model
        {
          let adapters = try await attacher.server.get("/lora-adapters")
          if adapters.raw == attachment.adapters[...] {
            return before
          }
        }
        logger.info("the server was started anew")
      case .notHelped(_, let known):
        // What could not be understood once may have been in use by someone else: it is looked at again, soon at first.
        let isRecent = nowNanoseconds() - attachTriedNanoseconds < retryNanoseconds
        if properties.raw == known[...], isRecent || hasGivenUp { return before }
      case .away: break
      }
      standing = await attach(properties)
    } catch let refusal as LlamaServer.Refusal {
      // 503 while it loads its model; 401 where our key is wrong; a router knows no properties without a model.
      standing =
        refusal.status == 503
        ? .away("it is loading")
        : .notHelped("it does not tell its properties (\(refusal.status))", properties: [])
    } catch {
      standing = .away("\(error)")
    }
    await report(before, standing)
    return standing
  }

  private func attach(_ properties: JSON) async -> Standing {
    hasGivenUp = false
    retryNanoseconds = min(5_000_000_000, max(250_000_000, retryNanoseconds * 2))
    defer { attachTriedNanoseconds = nowNanoseconds() }
    do {
      let attachment = try await attacher.attach()
      attacher.folder.prepare(byteCount: Companion.spareByteCount)
      attachCount += 1
      retryNanoseconds = 0
      await slots.reset(count: attachment.slotCount)
      stores = [:]
      return .attached(attachment)
    } catch let problem as NotHelped {
      return .notHelped(problem.description, properties: Array(properties.raw))
    } catch let problem as Attacher.NotAsLeft {
      return .notHelped(problem.problem.description, properties: Array(properties.raw))
    } catch let refusal as LlamaServer.Refusal {
      return .notHelped("it refused a question: \(refusal)", properties: [])
    } catch let problem as LlamaServer.Unreachable {
      return .away("\(problem)")
    } catch {
      return .notHelped("\(error)", properties: [])
    }
  }

  private func report(_ before: Standing, _ after: Standing) async {
    switch (before, after) {
    case (.attached, .away(let why)), (.notHelped, .away(let why)):
      logger.warning("the server is gone: \(why)")
      await slots.dropWaiters()
    case (_, .attached(let attachment)):
      logger.info(
        "attached to \(attachment.modelName)",
        metadata: [
          "build": "\(attachment.buildInfo)", "slots": "\(attachment.slotCount)",
          "kinds": "\(attachment.layout.caches.count)", "window": "\(attachment.windowTokenCount)",
          "state": "\(attachment.layout.stateByteCount)",
        ]
      )
    case (.notHelped(let old, _), .notHelped(let new, _)) where old == new: break
    case (_, .notHelped(let why, _)):
      logger.warning("requests are passed on as they are: \(why)")
    default: break
    }
  }

  /// The store did not give back what this layout needs: it is not used until the server is started anew.
  func giveUp(_ why: String) {
    guard case .attached(let attachment) = standing else { return }
    logger.error("requests are passed on as they are until the server is started anew: \(why)")
    standing = .notHelped(why, properties: attachment.properties)
    hasGivenUp = true
  }

  /// The part of the store for this server and tenant; nil while the store cannot be had.
  func prefixes(_ attachment: Attachment, tenant: [UInt8]) async -> PrefixStore? {
    if let known = stores[tenant] { return known }
    guard let store = openStore() else { return nil }
    var identity = attachment.identity
    identity.salt = tenant
    var limits = NamespaceLimits()
    limits.quotaBytes = options.separatesTenants ? options.tenantQuotaBytes : nil
    limits.timeToLive = options.idleSeconds.map { .idle(nanoseconds: $0 * 1_000_000_000) }
    do {
      let prefixes = try PrefixStore(
        store,
        identity,
        limits,
        layout: attachment.layout,
        windowTokenCount: attachment.windowTokenCount,
        remoteWaitNanoseconds: options.remote.url.isEmpty ? 0 : options.remoteWaitNanoseconds
      )
      // Of ten thousand tenants, those of now.
      if stores.count >= 1024 { stores.removeAll() }
      stores[tenant] = prefixes
      return prefixes
    } catch {
      note(problem: "\((error as? StoreError)?.message ?? "\(error)")")
      return nil
    }
  }

  /// Opens the store, again after a while when it could not be.
  @discardableResult
  func openStore() -> Store? {
    if let store { return store }
    guard storeTriedNanoseconds == 0 || nowNanoseconds() - storeTriedNanoseconds > 10_000_000_000
    else {
      return nil
    }
    storeTriedNanoseconds = nowNanoseconds()
    var configuration = StoreConfiguration(path: options.storePath)
    configuration.capacityBytes = options.capacityBytes
    configuration.hostBytes = options.hostBytes
    configuration.remote = options.remote
    do {
      let opened = try Store.open(configuration)
      Self.faultIn(try unsafe opened.hostMemory())
      store = opened
      storeProblem = nil
    } catch {
      note(problem: error.message)
      if case .invalidArgument(let argument) = error,
        [.remote, .remoteKey, .remoteCredentials, .remoteTLS].contains(argument)
      {
        remoteMistake = error.message
      }
    }
    return store
  }

  /// Has the kernel give the store the memory that its first restores use, before anyone waits for them.
  private static func faultIn(_ memory: UnsafeMutableRawBufferPointer) {
    let step = 2 << 20
    let populateWrite: Int32 = 23
    var offset = 0
    while offset + step <= min(memory.count / 4, 64 << 20) {
      guard madvise(memory.baseAddress! + offset, step, populateWrite) == 0 else { return }
      offset += step
    }
  }

  private func note(problem: String) {
    if storeProblem != problem {
      logger.error("the store cannot be used, requests are passed on: \(problem)")
    }
    storeProblem = problem
  }

  /// Closes the store; what was offloaded is durable then.
  func close() {
    guard let store else { return }
    do {
      try store.close()
    } catch {
      logger.error("closing the store: \(error.message)")
    }
    self.store = nil
    stores = [:]
  }
}
