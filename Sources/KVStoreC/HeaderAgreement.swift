internal import CKVStore
internal import KVStore

/// A drift between kvstore.h and the exports does not compile.
///
/// `@_cdecl` checks a function against no header, so here each one's imported declaration and ours are stated to have
/// one type (a conversion of ours to a C function would emit it twice). Nothing calls this.
func headerAgreement() {
  do {
    let _: @convention(c) () -> UInt32 = kvstore_version
    let ours = Exactly(exportVersion)
    let _: Exactly<@Sendable () -> UInt32> = ours
  }
  do {
    let _: @convention(c) (Int32) -> UnsafePointer<CChar>? = unsafe kvstore_status_string
    let ours = unsafe Exactly(exportStatusString)
    let _: Exactly<@Sendable (Int32) -> UnsafePointer<CChar>?> = unsafe ours
  }
  do {
    let _: @convention(c) () -> UnsafePointer<CChar>? = unsafe kvstore_last_error_message
    let ours = unsafe Exactly(exportLastErrorMessage)
    let _: Exactly<@Sendable () -> UnsafePointer<CChar>?> = unsafe ours
  }
  do {
    let _: @convention(c) (UnsafeMutablePointer<kvstore_config_t>?, Int) -> Int32 =
      unsafe kvstore_config_init
    let ours = unsafe Exactly(exportConfigInit)
    let _: Exactly<@Sendable (UnsafeMutablePointer<kvstore_config_t>?, Int) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (UnsafePointer<kvstore_config_t>?, UnsafeMutablePointer<OpaquePointer?>?) ->
        Int32 = unsafe kvstore_open
    let ours = unsafe Exactly(exportOpen)
    let _:
      Exactly<
        @Sendable (UnsafePointer<kvstore_config_t>?, UnsafeMutablePointer<OpaquePointer?>?) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_close
    let ours = unsafe Exactly(exportClose)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (OpaquePointer?, UInt64, UnsafeMutablePointer<kvstore_flush_result_t>?) ->
        Int32 = unsafe kvstore_flush
    let ours = unsafe Exactly(exportFlush)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UInt64, UnsafeMutablePointer<kvstore_flush_result_t>?) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UnsafeMutablePointer<kvstore_stats_t>?) -> Int32 =
      unsafe kvstore_stats
    let ours = unsafe Exactly(exportStats)
    let _: Exactly<@Sendable (OpaquePointer?, UnsafeMutablePointer<kvstore_stats_t>?) -> Int32> =
      unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?, UnsafeMutablePointer<Int>?
      ) -> Int32 = unsafe kvstore_host_memory
    let ours = unsafe Exactly(exportHostMemory)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
          UnsafeMutablePointer<Int>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (UnsafeMutablePointer<kvstore_namespace_config_t>?, Int) -> Int32 =
      unsafe kvstore_namespace_config_init
    let ours = unsafe Exactly(exportNamespaceConfigInit)
    let _: Exactly<@Sendable (UnsafeMutablePointer<kvstore_namespace_config_t>?, Int) -> Int32> =
      unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_namespace_config_t>?,
        UnsafeMutablePointer<OpaquePointer?>?
      ) -> Int32 = unsafe kvstore_namespace_open
    let ours = unsafe Exactly(exportNamespaceOpen)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_namespace_config_t>?,
          UnsafeMutablePointer<OpaquePointer?>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_namespace_close
    let ours = unsafe Exactly(exportNamespaceClose)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?,
        UnsafeMutablePointer<kvstore_block_key_t>?, Int, UnsafeMutablePointer<Int>?
      ) -> Int32 = unsafe kvstore_block_keys
    let ours = unsafe Exactly(exportBlockKeys)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?,
          UnsafeMutablePointer<kvstore_block_key_t>?, Int, UnsafeMutablePointer<Int>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
        UnsafeMutablePointer<kvstore_match_t>?
      ) -> Int32 = unsafe kvstore_match
    let ours = unsafe Exactly(exportMatch)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
          UnsafeMutablePointer<kvstore_match_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafeRawPointer?, Int, UInt32, UInt64,
        UnsafeMutablePointer<kvstore_match_t>?
      ) -> Int32 = unsafe kvstore_match_keys
    let ours = unsafe Exactly(exportMatchKeys)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafeRawPointer?, Int, UInt32, UInt64,
          UnsafeMutablePointer<kvstore_match_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UnsafeMutablePointer<kvstore_transfer_result_t>?
      ) -> Int32 = unsafe kvstore_restore
    let ours = unsafe Exactly(exportRestore)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UnsafeMutablePointer<kvstore_transfer_result_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UnsafeMutablePointer<kvstore_transfer_result_t>?
      ) -> Int32 = unsafe kvstore_offload
    let ours = unsafe Exactly(exportOffload)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UnsafeMutablePointer<kvstore_transfer_result_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UnsafeMutablePointer<OpaquePointer?>?
      ) -> Int32 = unsafe kvstore_restore_start
    let ours = unsafe Exactly(exportRestoreStart)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UnsafeMutablePointer<OpaquePointer?>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UnsafeMutablePointer<OpaquePointer?>?
      ) -> Int32 = unsafe kvstore_offload_start
    let ours = unsafe Exactly(exportOffloadStart)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UnsafeMutablePointer<OpaquePointer?>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (OpaquePointer?, UnsafeMutablePointer<kvstore_transfer_result_t>?) -> Int32 =
        unsafe kvstore_poll
    let ours = unsafe Exactly(exportPoll)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UnsafeMutablePointer<kvstore_transfer_result_t>?) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (OpaquePointer?, UInt64, UnsafeMutablePointer<kvstore_transfer_result_t>?) ->
        Int32 = unsafe kvstore_wait
    let ours = unsafe Exactly(exportWait)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UInt64, UnsafeMutablePointer<kvstore_transfer_result_t>?) ->
          Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_cancel
    let ours = unsafe Exactly(exportCancel)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_prefetch
    let ours = unsafe Exactly(exportPrefetch)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?)
          -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UnsafeMutablePointer<OpaquePointer?>?, UnsafeMutablePointer<kvstore_transfer_result_t>?
      ) -> Int32 = unsafe kvstore_restore_view
    let ours = unsafe Exactly(exportRestoreView)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UnsafeMutablePointer<OpaquePointer?>?, UnsafeMutablePointer<kvstore_transfer_result_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_view_release
    let ours = unsafe Exactly(exportViewRelease)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
        UInt64, UnsafeMutablePointer<OpaquePointer?>?,
        UnsafeMutablePointer<kvstore_transfer_result_t>?
      ) -> Int32 = unsafe kvstore_offload_reserve
    let ours = unsafe Exactly(exportOffloadReserve)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafePointer<kvstore_transfer_t>?,
          UInt64, UnsafeMutablePointer<OpaquePointer?>?,
          UnsafeMutablePointer<kvstore_transfer_result_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_span_t>?, Int,
        UnsafeMutablePointer<kvstore_transfer_result_t>?
      ) -> Int32 = unsafe kvstore_offload_commit
    let ours = unsafe Exactly(exportOffloadCommit)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_span_t>?, Int,
          UnsafeMutablePointer<kvstore_transfer_result_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_offload_abort
    let ours = unsafe Exactly(exportOffloadAbort)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64) -> Int32 = unsafe kvstore_lease_release
    let ours = unsafe Exactly(exportLeaseRelease)
    let _: Exactly<@Sendable (OpaquePointer?, UInt64) -> Int32> = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UInt64) -> Int32 = unsafe kvstore_lease_extend
    let ours = unsafe Exactly(exportLeaseExtend)
    let _: Exactly<@Sendable (OpaquePointer?, UInt64, UInt64) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt64, UnsafeMutablePointer<UInt64>?,
        UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_pin
    let ours = unsafe Exactly(exportPin)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt64, UnsafeMutablePointer<UInt64>?,
          UnsafeMutablePointer<UInt64>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64) -> Int32 = unsafe kvstore_unpin
    let ours = unsafe Exactly(exportUnpin)
    let _: Exactly<@Sendable (OpaquePointer?, UInt64) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_touch
    let ours = unsafe Exactly(exportTouch)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?)
          -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_purge
    let ours = unsafe Exactly(exportPurge)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UnsafeMutablePointer<UInt64>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_forget
    let ours = unsafe Exactly(exportForget)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UnsafeMutablePointer<UInt64>?)
          -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafeMutablePointer<UInt64>?, UnsafeMutablePointer<kvstore_event_t>?, Int,
        Int, UnsafeMutablePointer<Int>?
      ) -> Int32 = unsafe kvstore_events_read
    let ours = unsafe Exactly(exportEventsRead)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafeMutablePointer<UInt64>?, UnsafeMutablePointer<kvstore_event_t>?,
          Int, Int, UnsafeMutablePointer<Int>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        UnsafePointer<OpaquePointer?>?, Int, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
        UnsafeMutablePointer<kvstore_match_t>?
      ) -> Int32 = unsafe kvstore_match_all
    let ours = unsafe Exactly(exportMatchAll)
    let _:
      Exactly<
        @Sendable (
          UnsafePointer<OpaquePointer?>?, Int, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
          UnsafeMutablePointer<kvstore_match_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UInt32>?) -> Int32 =
      unsafe kvstore_namespace_id
    let ours = unsafe Exactly(exportNamespaceID)
    let _: Exactly<@Sendable (OpaquePointer?, UnsafeMutablePointer<UInt32>?) -> Int32> = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32,
        UnsafeMutablePointer<kvstore_explanation_t>?
      ) -> Int32 = unsafe kvstore_explain
    let ours = unsafe Exactly(exportExplain)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32,
          UnsafeMutablePointer<kvstore_explanation_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>?)
        -> Int32 = unsafe kvstore_metrics_text
    let ours = unsafe Exactly(exportMetricsText)
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>?) ->
          Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<CChar>?, UnsafeMutablePointer<OpaquePointer?>?,
        UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_session_begin
    let ours = unsafe Exactly(exportSessionBegin)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<CChar>?, UnsafeMutablePointer<OpaquePointer?>?,
          UnsafeMutablePointer<UInt64>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
        UnsafeMutablePointer<kvstore_match_t>?
      ) -> Int32 = unsafe kvstore_session_match
    let ours = unsafe Exactly(exportSessionMatch)
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_prompt_t>?, UInt32, UInt64,
          UnsafeMutablePointer<kvstore_match_t>?
        ) -> Int32
      > = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_session_step
    let ours = unsafe Exactly(exportSessionStep)
    let _: Exactly<@Sendable (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32> =
      unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_session_touch
    let ours = unsafe Exactly(exportSessionTouch)
    let _: Exactly<@Sendable (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32> = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_session_set_ttl
    let ours = unsafe Exactly(exportSessionSetTTL)
    let _: Exactly<@Sendable (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32> =
      unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_session_end
    let ours = unsafe Exactly(exportSessionEnd)
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe ours
  }
  do {
    let _: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_namespace_purge
    let ours = unsafe Exactly(exportNamespacePurge)
    let _: Exactly<@Sendable (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32> =
      unsafe ours
  }
}

/// Keeps a function's type as it is: no conversion hides a difference.
struct Exactly<Function> {
  init(_ function: Function) {}
}

/// `TransferSpan` has the layout of `kvstore_span_t`; checked once at the first move in debug builds.
func spanLayoutAgrees() -> Bool {
  unsafe MemoryLayout<TransferSpan>.stride == MemoryLayout<kvstore_span_t>.stride
    && MemoryLayout<TransferSpan>.offset(of: \.data)
      == MemoryLayout<kvstore_span_t>.offset(of: \.data)
    && MemoryLayout<TransferSpan>.offset(of: \.capacity)
      == MemoryLayout<kvstore_span_t>.offset(of: \.capacity)
    && MemoryLayout<TransferSpan>.offset(of: \.length)
      == MemoryLayout<kvstore_span_t>.offset(of: \.length)
}
