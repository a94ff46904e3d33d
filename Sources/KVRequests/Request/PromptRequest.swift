/// A request as the prompt that a server makes of it: its parts in the order in which they come before the model.
///
/// What comes first decides over the cache of all that follows, so the order is that of the prompt, not that of the body: what the
/// whole prompt hangs on (model, adapter, template), tools, system prompt, messages. Fields that reach no prompt (`temperature`,
/// `stream`, `cache_control` …) are left out; fields that nobody has heard of are taken by their shape.
public struct PromptRequest: Sendable {
  /// The interface that the body is made for.
  public let format: RequestFormat
  /// The model that is asked, where the body says.
  public let model: String?
  /// Its parts, in the order of the prompt.
  public let parts: [RequestPart]
  /// What the whole prompt hangs on.
  let settings: [RequestSetting]
  /// The text of all parts, one behind the other.
  let prompt: [UInt8]
  let pieces: [RequestPiece]
  let document: JSONDocument
  /// The node of the body.
  let body: Int
  /// It goes on from something that only the server has.
  let hasHiddenHistory: Bool
  /// How long the body asks the server to keep the prompt, in seconds: the longest `ttl` of its break points; nil where it does not
  /// say.
  public let timeToLiveSeconds: Double?

  /// Reads the body of a request.
  public init(json: [UInt8]) throws(JSONFault) {
    let document = try JSONDocument(json)
    self.init(document, body: document.root)
  }

  init(_ document: JSONDocument, body: Int) {
    var reader = RequestReader(document, body: body)
    reader.read()
    format = reader.format
    model = reader.model
    parts = reader.parts
    settings = reader.settings
    prompt = reader.prompt
    pieces = reader.pieces
    hasHiddenHistory = reader.hasHiddenHistory
    timeToLiveSeconds = reader.timeToLiveSeconds
    self.document = document
    self.body = body
  }

  /// Tokens of the whole prompt, estimated.
  public var tokenCount: Int { parts.reduce(0) { $0 + $1.tokenCount } }

  /// Whether there is anything to compare.
  public var isEmpty: Bool { parts.isEmpty }
}

/// The interfaces that are known by name.
public enum RequestFormat: String, Sendable, CaseIterable {
  /// OpenAI's chat completions, which most servers speak.
  case openAIChat = "openai-chat"
  /// OpenAI's responses.
  case openAIResponses = "openai-responses"
  /// Anthropic's messages.
  case anthropicMessages = "anthropic-messages"
  /// A prompt as one text: OpenAI's completions, llama-server's `/completion`.
  case completion
  /// Anything else: fields are taken by their shape.
  case other
}

/// A piece of a prompt that stays or goes as one: a tool, the system prompt, a message.
public struct RequestPart: Sendable {
  /// Who speaks.
  public enum Role: Sendable, Equatable {
    case tool, system, user, assistant, toolResult, other
  }

  /// Who speaks.
  public let role: Role
  /// Of a tool, its name.
  public let name: String?
  /// Tokens, estimated.
  public let tokenCount: Int
  /// Of all that reaches the prompt.
  let hash: UInt64
  /// Bytes of `prompt`.
  let range: Range<Int>
  /// Of `pieces`.
  let pieces: Range<Int>
  /// The value in the document; of a part of a text, that text.
  let node: Int
}

/// A value of a part that reaches the prompt.
struct RequestPiece: Sendable {
  enum Kind: Sendable {
    case text, reasoning, callName, callArguments, callID, result, media, schema, field
  }

  var kind: Kind
  var node: Int
  /// Bytes of `prompt`.
  var range: Range<Int>
  /// Where it begins in the decoded text of its node, in bytes; beyond 0 only in a prompt that is one long text.
  var textOffset: Int
  var hash: UInt64
}

/// A field on which the whole prompt hangs.
struct RequestSetting: Sendable {
  enum Kind: Sendable { case model, adapter, template, other }

  var kind: Kind
  var key: String
  var node: Int
  var value: [UInt8]
}
