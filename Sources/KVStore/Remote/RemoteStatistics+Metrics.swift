/// The remote tier's lines of `metricsText`.
extension RemoteStatistics {
  func add(to page: inout MetricsText) {
    page.add(
      "kvstore_remote_look_ups_total",
      .counter,
      "Look-ups that asked the remote tier.",
      lookUps
    )
    page.add(
      "kvstore_remote_look_up_rounds_total",
      .counter,
      "Rounds of questions that those took.",
      lookUpRounds
    )
    page.add(
      "kvstore_remote_chunks_total",
      .counter,
      "Chunks by what became of them: found by look-ups, fetched, sent, there already, removed as unsound.",
      [
        ([("what", "found")], chunksFound), ([("what", "fetched")], chunksFetched),
        ([("what", "sent")], chunksSent), ([("what", "existed")], chunksExisted),
        ([("what", "removed")], objectsRemoved),
      ]
    )
    page.add(
      "kvstore_remote_blocks_fetched_total",
      .counter,
      "Blocks that were fetched and new here.",
      blocksFetched
    )
    page.add(
      "kvstore_remote_bytes_total",
      .counter,
      "Bytes of chunks, by direction.",
      [([("direction", "in")], bytesFetched), ([("direction", "out")], bytesSent)]
    )
    page.add(
      "kvstore_remote_misses_total",
      .counter,
      "Reads of the remote tier that brought nothing, by cause.",
      Cause.allCases.compactMap { cause in
        misses[cause].map { ([("cause", cause.rawValue)], $0) }
      }
    )
    page.add(
      "kvstore_remote_drops_total",
      .counter,
      "Chunks that were to be sent and were not, by cause.",
      Cause.allCases.compactMap { cause in
        drops[cause].map { ([("cause", cause.rawValue)], $0) }
      }
    )
    page.add(
      "kvstore_remote_evicted_blocks_total",
      .counter,
      "Blocks that were evicted here, where such are sent before: those that were there by then, and those that were not.",
      [([("sent", "yes")], blocksDemoted), ([("sent", "no")], blocksLost)]
    )
    page.add(
      "kvstore_remote_available",
      .gauge,
      "1 where the remote tier is asked, 0 while it is left alone after failures.",
      isBreakerOpen ? 0 : 1
    )
    page.add(
      "kvstore_remote_writable",
      .gauge,
      "0 while writing waits since it is full or refuses.",
      isPaused ? 0 : 1
    )
    page.add(
      "kvstore_remote_purges_pending",
      .gauge,
      "Purges that the remote tier has not confirmed.",
      purgesPending
    )
  }
}
