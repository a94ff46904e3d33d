import KVCore
import KVStore
import NIOHTTP1
import NIOPosix

extension Companion {
  /// Lets the server compute what its slot lacks of a prompt, in the caller's name.
  func compute(_ passage: Passage, slot: Int, _ headers: HTTPHeaders) async throws -> JSON {
    let prompt = JSON.list(passage.tokens)
    return try await server.post(
      "/completion",
      "{\"prompt\":\(prompt),\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":true,\"n_cache_reuse\":0}",
      headers: Self.credentials(headers)
    )
  }

  /// Starts bringing what is stored of a prompt from disk into RAM; nothing is computed.
  func prefetch(_ source: PromptSource, _ headers: HTTPHeaders) async throws -> (
    tokens: Int, stored: Int
  ) {
    let tokens = try await tokens(source, headers)
    guard case .attached(let attachment) = await keeper.current() else {
      throw NotHelped("requests are passed on as they are")
    }
    guard let prefixes = await keeper.prefixes(attachment, tenant: tenant(headers)) else {
      throw NotHelped("the store cannot be used")
    }
    let stored = try await threads.runIfActive {
      do {
        return try prefixes.prefetch(tokens)
      } catch {
        throw NotHelped((error as? StoreError)?.message ?? "\(error)")
      }
    }
    return (tokens.count, stored)
  }

  /// What a caller proves itself with.
  static func credentials(_ headers: HTTPHeaders) -> HTTPHeaders {
    var own = HTTPHeaders()
    for name in ["authorization", "x-api-key"] {
      for value in headers[name] { own.add(name: name, value: value) }
    }
    return own
  }
}
