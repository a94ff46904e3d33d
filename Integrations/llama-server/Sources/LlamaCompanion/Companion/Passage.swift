import LlamaSlots
import Synchronization

extension Companion {
  /// A request's way to a slot.
  final class Passage: Sendable {
    let epoch: UInt64
    let prefixes: PrefixStore
    let state: Mutex<State>
    let attachment: Attachment
    var layout: SlotLayout { attachment.layout }
    /// Of a prompt that is new at first only how it begins.
    var tokens: [Int32] { state.withLock { $0.tokens } }
    let body: [UInt8]
    /// Whether the request says something in words.
    let hasText: Bool
    let hints: Hints
    let style: RequestKind.EndpointStyle
    /// What break points in the request want kept.
    let kept: [KeptPrefix]
    /// Requests with adapters of their own, when this one was looked at.
    let foreign: Foreign
    var wantsKeeping: Bool {
      !kept.isEmpty || hints.pinSeconds != nil || hints.keepAliveSeconds != nil
    }
    let usesGate: Bool

    struct State: Sendable {
      var slot: SlotTable.Slot
      var exchange: Exchange
      var tokens: [Int32]
      /// Tells all tokens, where it is new.
      var rest: Task<[Int32], any Error>?
      /// Stored of this request so far; added by whoever stores, at any time.
      var newBlockCount = 0
      /// It is being settled, which is done once: a client may leave behind the last of its answer.
      var isFinished = false
      /// The longest end that is stored of its prompt, or that it began with.
      var lastEnd = 0
      /// What stores its files.
      var stores: [Task<Void, Never>] = []
      /// Others know that it will be in the store.
      var isComing = false
    }

    init(
      _ slot: SlotTable.Slot,
      _ epoch: UInt64,
      _ prefixes: PrefixStore,
      _ attachment: Attachment,
      _ tokens: [Int32],
      _ rest: Task<[Int32], any Error>?,
      _ body: [UInt8],
      _ hasText: Bool,
      _ hints: Hints,
      _ style: RequestKind.EndpointStyle,
      _ kept: [KeptPrefix],
      _ foreign: Foreign,
      _ exchange: Exchange
    ) {
      self.epoch = epoch
      self.prefixes = prefixes
      self.attachment = attachment
      usesGate = attachment.clearsIdleSlots
      self.body = body
      self.hasText = hasText
      self.hints = hints
      self.style = style
      self.kept = kept
      self.foreign = foreign
      state = Mutex(State(slot: slot, exchange: exchange, tokens: tokens, rest: rest))
    }
  }

  /// What becomes of a request.
  enum Decision: Sendable {
    case pass(Exchange)
    case help(Passage, body: [UInt8], Exchange)
    case gone(String)
  }
}
