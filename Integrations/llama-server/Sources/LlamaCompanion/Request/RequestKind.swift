/// What kind of request this is, and whether a stored prefix can help it.
enum RequestKind: Sendable {
  case helped(PromptSource, EndpointStyle)
  /// Passed on as it is, because of this. Whether it takes a slot.
  case passed(reason: String, completes: Bool)

  static let ownAdapters = "adapters of its own"

  enum EndpointStyle: Sendable { case openAI, anthropic, responses }

  /// Paths of requests that complete a prompt.
  private static func form(_ path: Substring) -> String? {
    switch path {
    case "/v1/chat/completions", "/chat/completions", "/api/chat": "chat"
    case "/v1/completions", "/completions", "/completion": "text"
    case "/v1/messages", "/messages": "messages"
    case "/v1/responses", "/responses": "responses"
    case "/infill": "other"
    default: nil
    }
  }

  static func completes(method: String, path: String) -> Bool {
    method == "POST" && form(path.prefix { $0 != "?" }) != nil
  }

  init(path: String, body: JSON?) {
    guard let form = Self.form(path.prefix { $0 != "?" }) else {
      self = .passed(reason: "no completion", completes: false)
      return
    }
    guard let body, body.isObject else {
      self = .passed(reason: "no JSON object", completes: false)
      return
    }
    func pass(_ reason: String) -> RequestKind { .passed(reason: reason, completes: true) }
    if let slot = body["id_slot"]?.int, slot >= 0 { self = pass("the caller's own slot"); return }
    if body["cache_prompt"]?.bool == false { self = pass("cache_prompt is off"); return }
    if let count = body["n"], count.int != 1, !count.isNull {
      self = pass("several answers at once"); return
    }
    if let count = body["n_cmpl"], count.int != 1, !count.isNull {
      self = pass("several answers at once"); return
    }
    if let adapters = body["lora"], !adapters.elements.isEmpty {
      self = pass(Self.ownAdapters); return
    }
    if let reuse = body["n_cache_reuse"]?.int, reuse > 0 { self = pass("n_cache_reuse"); return }
    switch form {
    case "chat":
      guard let messages = body["messages"], messages.isArray else {
        self = pass("no messages"); return
      }
      for message in messages.elements {
        for part in message["content"]?.elements ?? [] {
          guard part["type"]?.string == "text" else { self = pass("media"); return }
        }
      }
      self = .helped(.messages(body: body.bytes), .openAI)
    case "messages":
      guard body["messages"]?.isArray == true else {
        self = pass("no messages")
        return
      }
      guard let converted = AnthropicMessages.converted(body) else {
        self = pass("media")
        return
      }
      self = .helped(.messages(body: converted), .anthropic)
    case "responses":
      guard let converted = ResponsesInput.converted(body) else {
        self = pass("responses with media or unknown items")
        return
      }
      self = .helped(.messages(body: converted), .responses)
    case "text":
      guard let prompt = body["prompt"] else { self = pass("no prompt"); return }
      if prompt.isString {
        self = .helped(.text(Array(prompt.raw)), .openAI)
      } else if let tokens = prompt.tokens, !tokens.isEmpty {
        self = .helped(.tokens(tokens), .openAI)
      } else {
        self = pass("several prompts or media")
      }
    default:
      self = pass("not a form that is helped")
    }
  }
}
