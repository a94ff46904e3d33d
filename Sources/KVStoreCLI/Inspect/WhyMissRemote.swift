import KVAdmin
import KVCore
import KVRemote
import KVStore

/// What a process knows of a prompt and its remote tier, in words.
extension WhyMissDocument.Remote {
  init(
    _ answer: StoreInspector.RemoteAnswer,
    _ identity: NamespaceIdentity,
    blockCount: Int
  ) {
    let tokensPerBlock = identity.tokensPerBlock
    let standing = answer.report.statistics
    processID = answer.owner.processID
    server = answer.report.server
    foundTokenCount = (answer.lookUp?.foundBlockCount ?? 0) * tokensPerBlock
    fetchedTokenCount = (answer.lookUp?.fetchedBlockCount ?? 0) * tokensPerBlock
    cause = answer.lookUp?.cause?.rawValue
    askedAt = answer.lookUp.flatMap { Moment(monotonicNanoseconds: $0.endedAt) }
    askedToken = answer.lookUp.map { $0.blockCount * tokensPerBlock }
    self.answer = Self.answer(answer.lookUp, standing)
    message = ""
    if answer.lookUp == nil, self.answer != "not_asked" {
      cause = standing.lastFailure?.rawValue
      askedAt = Moment(monotonicNanoseconds: standing.stateSince)
    }
    let chunkBlockCount = RemoteNamespace.blocksPerChunk(
      blockByteCount: identity.payloadByteCountMax
    )
    message =
      self.answer == "not_asked" && blockCount < chunkBlockCount
      ? "not asked: the prompt is shorter than a chunk of \(chunkBlockCount * tokensPerBlock) tokens "
        + "(process \(processID))"
      : text(always: answer.report.matchesAlways)
  }

  private static func answer(_ lookUp: RemoteLookUp?, _ standing: RemoteStatistics) -> String {
    guard let lookUp else {
      return switch standing.state {
      case .leftAlone, .unauthorized: standing.state.rawValue
      case .idle, .up: "not_asked"
      }
    }
    if lookUp.endedAt == 0 { return "fetching" }
    switch lookUp.cause {
    case nil: return "found"
    case .absent: return lookUp.fetchedBlockCount > 0 ? "found" : "absent"
    default: return "failed"
    }
  }

  private func text(always: Bool) -> String {
    let why = cause.map { SummaryDocument.Remote.text($0) }
    let ago = askedAt.map(agoText) ?? "–"
    let behind = askedToken.map { " for the prompt up to token \($0) and on" } ?? ""
    let fetched = "\(fetchedTokenCount) of \(foundTokenCount) tokens came"
    let text =
      switch answer {
      case "fetching": "being asked\(behind); \(fetched) so far"
      case "absent": "asked \(ago)\(behind): not there"
      case "found": "asked \(ago)\(behind): \(fetched)"
      case "failed": "asked \(ago)\(behind): \(fetched) (\(why ?? "–"))"
      case "left_alone": "not asked: left alone after failures (\(why ?? "–")), since \(ago)"
      case "unauthorized": "not asked: it refuses the credentials, since \(ago)"
      default:
        "not asked for this prompt lately"
          + (always ? "" : "; only matches that ask for it look there")
      }
    return "\(text) (process \(processID))"
  }
}
