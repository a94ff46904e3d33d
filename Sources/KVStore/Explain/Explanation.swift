public import KVCore

/// Why a prompt is stored only up to where it is.
public struct Explanation: Sendable, Equatable {
  /// What ended the stored prefix.
  public enum Cause: UInt32, Sendable, CaseIterable {
    /// Nothing: all full blocks of the prompt are stored.
    case stored = 0
    /// No stored prompt of the namespace has its first block, and none has parts of it elsewhere: another conversation.
    case nothingStored
    /// The prompt goes on where a stored one ends: only what is new is computed.
    case appended
    /// Stored prompts have its front and go on differently, with nothing in common behind that.
    case forked
    /// Tokens were replaced by others, behind which the stored prompt goes on.
    case edited
    /// Tokens were put in, behind which the stored prompt goes on.
    case inserted
    /// Tokens of the stored prompt were left out.
    case deleted
    /// The same parts come in another order.
    case reordered
    /// The same few tokens differ in every stored prompt: a time, an id.
    case volatileValue
    /// A part of the prompt is stored, behind another prefix.
    case elsewhere
    /// The prompt is stored in a namespace of another identity.
    case otherNamespace
    /// The missing block was evicted: the space was needed.
    case evicted
    /// The missing block was removed because its namespace was over its quota.
    case overQuota
    /// The missing block's time to live is over.
    case expired
    /// The missing block was forgotten, or its namespace purged.
    case forgotten
    /// The missing block failed a check.
    case damaged
    /// The prompt's new tokens fill no block.
    case partialBlock
  }

  /// A stored continuation at the point of divergence.
  public struct Branch: Sendable, Equatable {
    /// Its first block.
    public var position: BlockPosition
    /// Tokens of that block that are the prompt's, from the block's first one on.
    public var commonTokenCount: Int
    /// Blocks of its run from there on.
    public var blockCount: Int
    /// How it goes on, from the first differing token.
    public var nextTokens: [UInt32]
    /// Unix seconds.
    public var createdSeconds: UInt32
  }

  /// A field of two identities that differs.
  public struct FieldDifference: Sendable, Equatable {
    /// The field, as docs/file-format.md names it.
    public var field: String
    /// Its value in the namespace that was asked.
    public var here: String
    /// Its value in the namespace that has the prompt.
    public var there: String
  }

  /// What ended the stored prefix.
  public var cause = Cause.stored
  /// Full blocks of the prompt.
  public var blockCount = 0
  /// Of those, the leading ones that are stored.
  public var matchedBlockCount = 0
  /// The same in tokens.
  public var matchedTokenCount = 0
  /// The first token that no stored prompt has here: how far the nearest branch agrees.
  public var divergenceToken = 0
  /// The nearest branches, nearest first; at most four.
  public var branches: [Branch] = []
  /// Stored continuations in all, as far as they were counted.
  public var branchCount = 0
  /// Tokens of the prompt in place of `storedTokenCount` of the nearest branch (edited, inserted, deleted).
  public var promptTokenCount = 0
  /// Tokens of the nearest branch that the prompt does not have.
  public var storedTokenCount = 0
  /// Tokens behind the divergence that are stored all the same, behind another prefix: what the change costs.
  public var lostTokenCount = 0
  /// Where that part stands: tokens before it in its own chain; nil when that is not known.
  public var elsewhereDepth: Int?
  /// When the missing block left or expired: Unix nanoseconds, 0 when it did not.
  public var leftNanoseconds: UInt64 = 0
  /// That is when its room was taken back, some time after its life was over (`expired`).
  public var leftAfterItsEnd = false
  /// The namespace that has the prompt (`otherNamespace`).
  public var otherNamespace: NamespaceID?
  /// Leading tokens that it has.
  public var otherMatchedTokenCount = 0
  /// What differs between the two identities.
  public var differences: [FieldDifference] = []

  /// Everything is stored.
  public init() {}
}

/// How much an explanation may look at.
public struct ExplainOptions: Sendable {
  /// Rows of the catalog that are read to find what the prompt has in common with others.
  public var rowCountMax = 2_048
  /// Tokens behind the divergence that are compared.
  public var tokenCountMax = 16_384
  /// Stored continuations that are looked at.
  public var branchCountMax = 256
  /// Other namespaces that are asked.
  public var namespaceCountMax = 64
  /// Only namespaces with the salt of the asked one; the store's owner at the command line sees all.
  public var sameSaltOnly = true

  /// What is cheap enough to ask on every miss.
  public init() {}

  /// For people at the command line, who can wait for a second.
  public static var thorough: ExplainOptions {
    var options = ExplainOptions()
    options.rowCountMax = 1 << 20
    options.tokenCountMax = 1 << 20
    options.branchCountMax = 16_384
    options.namespaceCountMax = 16_384
    return options
  }
}
