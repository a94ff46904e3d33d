/// The remote tier's lines of `metricsText`.
struct RemoteMetrics {
  /// What each process counted; a process' own has no labels.
  let processes: [(labels: MetricsText.Labels, statistics: RemoteStatistics)]

  func add(to page: inout MetricsText) {
    addReads(to: &page)
    addWrites(to: &page)
    addStanding(to: &page)
  }

  /// A sample for each process.
  private func samples(_ value: (RemoteStatistics) -> UInt64) -> [(
    labels: MetricsText.Labels, value: UInt64
  )] {
    processes.map { ($0.labels, value($0.statistics)) }
  }

  /// A sample for each process and name.
  private func samples(
    _ label: String,
    _ values: [(String, (RemoteStatistics) -> UInt64)]
  ) -> [(labels: MetricsText.Labels, value: UInt64)] {
    processes.flatMap { labels, statistics in
      values.map { name, value in (labels + [(label, name)], value(statistics)) }
    }
  }

  private func causes(
    _ counts: KeyPath<RemoteStatistics, [RemoteStatistics.Cause: UInt64]>
  ) -> [(labels: MetricsText.Labels, value: UInt64)] {
    samples(
      "cause",
      RemoteStatistics.Cause.allCases.map { cause in
        // 0 as well: a counter that first appears with 1 has no rate then.
        (cause.rawValue, { $0[keyPath: counts][cause] ?? 0 })
      }
    )
  }

  private func addReads(to page: inout MetricsText) {
    page.add(
      "kvstore_remote_look_ups_total",
      .counter,
      "Look-ups that asked the remote tier.",
      samples(\.lookUps)
    )
    page.add(
      "kvstore_remote_look_ups_found_total",
      .counter,
      "Of those, the ones that found something.",
      samples(\.lookUpsFound)
    )
    page.add(
      "kvstore_remote_look_up_rounds_total",
      .counter,
      "Rounds of questions that those took.",
      samples(\.lookUpRounds)
    )
    page.add(
      "kvstore_remote_chunks_total",
      .counter,
      "Chunks by what became of them: found by look-ups, fetched, sent, there already, removed as unsound.",
      samples(
        "what",
        [
          ("found", \.chunksFound), ("fetched", \.chunksFetched), ("sent", \.chunksSent),
          ("existed", \.chunksExisted), ("removed", \.objectsRemoved),
        ]
      )
    )
    page.add(
      "kvstore_remote_blocks_fetched_total",
      .counter,
      "Blocks that were fetched and new here.",
      samples(\.blocksFetched)
    )
    page.add(
      "kvstore_remote_bytes_total",
      .counter,
      "Bytes of chunks, by direction.",
      samples("direction", [("in", \.bytesFetched), ("out", \.bytesSent)])
    )
    page.add(
      "kvstore_remote_misses_total",
      .counter,
      "Reads of the remote tier that brought nothing, by cause.",
      causes(\.misses)
    )
  }

  private func addWrites(to page: inout MetricsText) {
    page.add(
      "kvstore_remote_drops_total",
      .counter,
      "Chunks that were to be sent and were not, by cause.",
      causes(\.drops)
    )
    page.add(
      "kvstore_remote_evicted_blocks_total",
      .counter,
      "Blocks that were evicted here, where such are sent before: those that were there by then, and those that were not.",
      samples("sent", [("yes", \.blocksDemoted), ("no", \.blocksLost)])
    )
    page.add(
      "kvstore_remote_queued",
      .gauge,
      "What is to be done, or being done: paths to be sent, look-ups.",
      samples("what", [("sends", \.sendsQueued), ("look_ups", \.lookUpsQueued)])
    )
    let bounded = processes.filter { $0.statistics.writeBytesPerDay > 0 }
    page.add(
      "kvstore_remote_write_budget_bytes",
      .gauge,
      "What may be written there: in a day, and at this moment.",
      RemoteMetrics(processes: bounded).samples(
        "of",
        [("day", \.writeBytesPerDay), ("left", \.writeBytesLeft)]
      )
    )
    page.add(
      "kvstore_remote_purges_pending",
      .gauge,
      "Purges that the remote tier has not confirmed.",
      samples(\.purgesPending)
    )
  }

  private func addStanding(to page: inout MetricsText) {
    page.add(
      "kvstore_remote_available",
      .gauge,
      "1 where the remote tier is asked, 0 while it is left alone after failures.",
      samples { $0.isBreakerOpen ? 0 : 1 }
    )
    page.add(
      "kvstore_remote_left_alone_total",
      .counter,
      "How often it was left alone after failures.",
      samples(\.breakerOpened)
    )
    page.add(
      "kvstore_remote_authorized",
      .gauge,
      "0 where the remote tier refuses the credentials.",
      samples { $0.state == .unauthorized ? 0 : 1 }
    )
    page.add(
      "kvstore_remote_writable",
      .gauge,
      "0 while writing waits since it is full or refuses.",
      samples { $0.isPaused ? 0 : 1 }
    )
    page.add(
      "kvstore_remote_bandwidth_bytes",
      .gauge,
      "Measured bandwidth of fetches, in bytes a second; 0 before the first.",
      samples(\.bytesPerSecond)
    )
    page.addSeconds(
      "kvstore_remote_round_seconds",
      "What a round of questions takes; 0 before the first.",
      samples(\.roundNanoseconds)
    )
  }
}
