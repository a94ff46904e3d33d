import FoundationEssentials

/// What tokens cost, by provider and model: a file with a date, since prices change.
struct PriceList: Codable {
  struct Provider: Codable {
    var name: String
    /// What a token costs that is found in the cache, as a part of the input price.
    var read: Double
    /// What a token costs that is not found; above 1 where writing to the cache is charged.
    var write: Double
    /// The same with the longer time to live, where there is one.
    var writeLong: Double?
    /// How long a prompt is kept.
    var ttlSeconds: Double?
    /// The longer one that can be chosen.
    var ttlLongSeconds: Double?
    /// Shorter prompts are not cached.
    var minimumTokens: Int
    /// The client says what is to be cached.
    var hasBreakpoints: Bool
    /// Input prices for a million tokens, by what a model's name begins with; the longest one counts.
    var models: [String: Double]
    /// What a model writes, for a million tokens, by the same names; not counted where it is not said.
    var outputs: [String: Double]?
  }

  var asOf: String
  var currency: String
  var source: String
  var providers: [Provider]

  /// The provider and the input price for a million tokens of a model; nil for one that is not in the list.
  func price(of model: String) -> (provider: Provider, input: Double)? {
    // Routers put the provider in front: anthropic/claude-…
    let names = [model, model.split(separator: "/").last.map(String.init) ?? model]
    for name in names {
      var best: (provider: Provider, input: Double, length: Int)?
      for provider in providers {
        for (prefix, input) in provider.models where name.hasPrefix(prefix) {
          if prefix.count > best?.length ?? 0 { best = (provider, input, prefix.count) }
        }
      }
      if let best { return (best.provider, best.input) }
    }
    return nil
  }

  /// What a token costs more when it is not found, for a million.
  static func loss(_ provider: Provider, input: Double, isLong: Bool) -> Double {
    input * ((isLong ? provider.writeLong ?? provider.write : provider.write) - provider.read)
  }

  /// Reads a price list as `--print-prices` writes it.
  static func read(_ path: String) throws -> PriceList {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw CommandFailure("cannot read \(path)")
    }
    do { return try JSONDecoder().decode(PriceList.self, from: data) } catch {
      throw CommandFailure(
        "\(path) is no price list: begin with the one that `kvstore lint --print-prices` prints"
      )
    }
  }

  static func shipped() throws -> PriceList {
    try JSONDecoder().decode(PriceList.self, from: Data(shippedText.utf8))
  }

  /// Public list prices, for one million input tokens.
  static let shippedText = """
    {
      "asOf": "2026-10-31",
      "currency": "USD",
      "source": "public price pages of the providers; check them before you rely on a figure",
      "providers": [
        {
          "name": "anthropic", "read": 0.1, "write": 1.25, "writeLong": 2,
          "ttlSeconds": 300, "ttlLongSeconds": 3600, "minimumTokens": 1024, "hasBreakpoints": true,
          "models": {
            "claude-opus-5": 5, "claude-opus-4-8": 5, "claude-opus-4-7": 5, "claude-opus-4-6": 5,
            "claude-opus-4-5": 5, "claude-opus-4": 15, "claude-sonnet-5": 2, "claude-sonnet": 3,
            "claude-sonnet-4": 3, "claude-3-7-sonnet": 3, "claude-3-5-sonnet": 3,
            "claude-haiku-4": 1, "claude-3-5-haiku": 0.8, "claude-3-haiku": 0.25
          },
          "outputs": {
            "claude-opus-4-7": 25, "claude-opus-4-6": 25, "claude-opus-4-5": 25, "claude-opus-4": 75,
            "claude-sonnet": 15, "claude-sonnet-4": 15, "claude-3-7-sonnet": 15,
            "claude-3-5-sonnet": 15, "claude-haiku-4": 5, "claude-3-5-haiku": 4,
            "claude-3-haiku": 1.25
          }
        },
        {
          "name": "openai", "read": 0.1, "write": 1,
          "ttlSeconds": 600, "ttlLongSeconds": 86400, "minimumTokens": 1024, "hasBreakpoints": false,
          "models": {
            "gpt-5.5": 5, "gpt-5.4": 2.5, "gpt-5.4-mini": 0.75, "gpt-5.2": 1.75, "gpt-5": 1.25,
            "gpt-5-mini": 0.25, "gpt-5-nano": 0.05
          },
          "outputs": {
            "gpt-5.5": 30, "gpt-5.4": 15, "gpt-5.4-mini": 4.5, "gpt-5.2": 14, "gpt-5": 10,
            "gpt-5-mini": 2, "gpt-5-nano": 0.4
          }
        },
        {
          "name": "gemini", "read": 0.25, "write": 1,
          "minimumTokens": 1024, "hasBreakpoints": false,
          "models": {
            "gemini-3.1-pro": 2, "gemini-3.1-flash-lite": 0.25, "gemini-3-pro": 2,
            "gemini-2.5-pro": 1.25, "gemini-2.5-flash": 0.3
          },
          "outputs": {
            "gemini-3.1-pro": 12, "gemini-3.1-flash-lite": 1.5, "gemini-3-pro": 12,
            "gemini-2.5-pro": 10, "gemini-2.5-flash": 2.5
          }
        },
        {
          "name": "deepseek", "read": 0.1, "write": 1,
          "minimumTokens": 0, "hasBreakpoints": false,
          "models": { "deepseek": 0.14 }, "outputs": { "deepseek": 0.28 }
        },
        {
          "name": "groq", "read": 0.5, "write": 1,
          "ttlSeconds": 7200, "minimumTokens": 128, "hasBreakpoints": false,
          "models": { "openai/gpt-oss-120b": 0.15, "openai/gpt-oss-20b": 0.075, "moonshotai/kimi-k2": 1 }
        }
      ]
    }
    """
}
