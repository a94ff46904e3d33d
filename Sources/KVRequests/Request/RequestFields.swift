/// What is known of fields by name.
///
/// Everything else is told by its shape.
enum RequestFields {
  enum Meaning {
    case setting(RequestSetting.Kind)
    case tools, system, messages, prompt, hiddenHistory
    /// Reaches no prompt.
    case ignored
    case unknown
  }

  /// What a field of the body means.
  static func meaning(_ key: String) -> Meaning { body[key] ?? .unknown }

  private static let body: [String: Meaning] = {
    var table: [String: Meaning] = [
      "model": .setting(.model), "modelId": .setting(.model), "model_id": .setting(.model),
      "modelName": .setting(.model), "model_name": .setting(.model), "engine": .setting(.model),
      "deployment": .setting(.model), "deployment_id": .setting(.model),
      "lora": .setting(.adapter), "lora_request": .setting(.adapter),
      "lora_adapters": .setting(.adapter), "adapter": .setting(.adapter),
      "adapter_id": .setting(.adapter), "adapters": .setting(.adapter),
      "chat_template": .setting(.template), "chat_template_kwargs": .setting(.template),
      "template": .setting(.template), "reasoning_effort": .setting(.other),
      "reasoning": .setting(.other), "thinking": .setting(.other),
      "response_format": .setting(.other), "tools": .tools, "functions": .tools,
      "toolConfig": .tools, "tool_config": .tools,
      "system": .system, "instructions": .system, "system_instruction": .system,
      "systemInstruction": .system, "system_prompt": .system,
      "messages": .messages, "input": .messages, "contents": .messages,
      "chat_history": .messages, "prompt": .prompt, "inputs": .prompt,
      "previous_response_id": .hiddenHistory, "conversation": .hiddenHistory,
    ]
    let ignored = [
      "temperature", "top_p", "top_k", "min_p", "typical_p", "max_tokens", "max_output_tokens",
      "max_completion_tokens", "n_predict", "n", "n_probs", "best_of", "stop", "stop_sequences",
      "stream", "stream_options", "seed", "user", "metadata", "store", "service_tier",
      "presence_penalty", "frequency_penalty", "repeat_penalty", "repeat_last_n", "logit_bias",
      "logprobs", "top_logprobs", "parallel_tool_calls", "tool_choice", "function_call",
      "truncation", "include", "background", "prompt_cache_key", "prompt_cache_retention",
      "safety_identifier", "cache_prompt", "id_slot", "slot_id", "samplers", "grammar",
      "json_schema", "mirostat", "dynatemp_range", "cache_control", "context_management", "betas",
      "anthropic_version", "anthropic_beta", "container", "verbosity", "modalities", "audio",
      "generationConfig", "generation_config", "safetySettings", "cachedContent", "keep_alive",
      "options", "priority", "request_id", "id", "session_id", "trace", "tags", "extra_body",
      "return_tokens", "timings_per_token", "post_sampling_probs", "t_max_predict_ms",
      "n_cache_reuse", "add_generation_prompt", "return_progress", "inferenceConfig",
      "inference_config", "guardrailConfig", "performanceConfig", "requestMetadata", "toolChoice",
      "parameters",
    ]
    for key in ignored { table[key] = .ignored }
    return table
  }()

  /// The order in which a template writes the fields of a message; what is not among them comes behind, by name.
  static func order(_ key: String) -> Int {
    switch key {
    case "name", "tool_call_id", "call_id", "tool_use_id": 1
    case "summary": 2
    case "reasoning", "reasoning_content", "thinking", "encrypted_content": 3
    case "content", "parts", "text", "output", "result": 4
    case "arguments", "input": 6
    case "tool_calls", "function_call": 7
    default: 5
    }
  }

  /// Fields of messages and their contents that reach no prompt.
  static let ignoredInMessages: Set<String> = [
    "cache_control", "status", "annotations", "logprobs", "signature", "detail", "audio",
    "refusal", "index", "cache_reference", "thought_signature", "thoughtSignature", "cachePoint",
  ]

  /// Fields that say what kind of thing an object is, and no more.
  static let kinds: Set<String> = ["role", "type", "is_error", "thought"]

  /// Fields that hold what the model thought before it answered.
  static let reasoning: Set<String> = [
    "reasoning", "reasoning_content", "reasoningContent", "reasoningText", "reasoning_details",
    "thinking", "encrypted_content",
  ]

  /// Fields that hold what a message says.
  static let contents: Set<String> = ["content", "parts", "text", "summary", "output", "result"]

  static func role(_ text: String) -> RequestPart.Role {
    switch text.lowercased() {
    case "system", "developer": .system
    case "user", "human", "customer", "client", "benutzer", "nutzer", "kunde", "utilisateur",
      "usuario", "usuário", "utente", "пользователь", "用户", "使用者", "ユーザー", "사용자":
      .user
    case "assistant", "model", "ai", "bot", "agent", "chatbot", "assistent", "asistente",
      "assistente", "ассистент", "助手", "アシスタント", "어시스턴트":
      .assistant
    case "tool", "function", "function_call_output", "tool_result", "ipython", "werkzeug", "outil",
      "herramienta", "ferramenta", "инструмент", "工具", "ツール":
      .toolResult
    case "système", "sistema", "система", "系统", "システム", "시스템": .system
    default: .other
    }
  }

  /// Whether a value says who speaks, in a field of whatever name.
  static func isRole(_ text: String) -> Bool { text.utf8.count <= 32 && role(text) != .other }
}
