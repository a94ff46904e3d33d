/// One read of a batch, on its way to a thread that reads.
///
/// Unchecked: the request's buffer is lent until the batch reports it.
@safe struct ReadJob: @unchecked Sendable {
  let batch: ReadBatch
  let index: Int
  let request: ReadRequest
  unowned let tier: DiskTier

  func run() {
    if batch.begin(index) { batch.finish(index, tier.perform(request)) }
  }
}
