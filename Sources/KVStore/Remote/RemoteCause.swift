internal import KVRemote

extension RemoteStatistics.Cause {
  init(_ error: RemoteError) {
    self =
      switch error {
      case .unreachable: .unreachable
      case .timedOut: .timedOut
      case .full: .full
      case .unauthorized: .unauthorized
      case .unavailable: .unavailable
      case .tooLarge, .refused: .refused
      case .protocolViolation: .protocolViolation
      case .insecure: .insecure
      case .closed: .breaker
      }
  }

  init(_ flaw: ChunkFlaw) {
    self =
      switch flaw {
      case .format: .format
      case .length: .length
      case .damaged: .damaged
      case .code: .code
      case .identity: .identity
      case .tokens: .tokens
      case .expired: .expired
      }
  }
}
