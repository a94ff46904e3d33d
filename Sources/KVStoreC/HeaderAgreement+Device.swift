internal import CKVStore

/// As `headerAgreement`, of the device's functions.
func headerAgreementOfDevice() {
  typealias Sequence = @Sendable (OpaquePointer?, UInt64) -> Int32
  typealias Result = UnsafeMutablePointer<kvstore_transfer_result_t>?
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<kvstore_device_config_t>?,
        UnsafeMutablePointer<OpaquePointer?>?
      ) -> Int32 = unsafe kvstore_device_attach
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<kvstore_device_config_t>?,
          UnsafeMutablePointer<OpaquePointer?>?
        ) -> Int32
      > = unsafe Exactly(exportDeviceAttach)
  }
  do {
    let _: @convention(c) (OpaquePointer?) -> Int32 = unsafe kvstore_device_detach
    let _: Exactly<@Sendable (OpaquePointer?) -> Int32> = unsafe Exactly(exportDeviceDetach)
  }
  do {
    let _: @convention(c) (UInt64, Int32) -> Int32 = kvstore_device_copy_done
    let _: Exactly<@Sendable (UInt64, Int32) -> Int32> = Exactly(exportDeviceCopyDone)
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
        UnsafeMutablePointer<UInt64>?
      ) -> Int32 = unsafe kvstore_device_memory
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
          UnsafeMutablePointer<UInt64>?
        ) -> Int32
      > = unsafe Exactly(exportDeviceMemory)
  }
  do {
    let _: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_sequence_create
    let _: Exactly<@Sendable (OpaquePointer?, UnsafeMutablePointer<UInt64>?) -> Int32> =
      unsafe Exactly(exportSequenceCreate)
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32 =
      unsafe kvstore_sequence_fork
    let _: Exactly<@Sendable (OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?) -> Int32> =
      unsafe Exactly(exportSequenceFork)
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64) -> Int32 = unsafe kvstore_sequence_free
    let _: Exactly<Sequence> = unsafe Exactly(exportSequenceFree)
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UnsafePointer<UInt32>?, Int, UInt64) -> Int32 =
      unsafe kvstore_sequence_append
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UInt64, UnsafePointer<UInt32>?, Int, UInt64) -> Int32
      > = unsafe Exactly(exportSequenceAppend)
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?, Int, UnsafeMutablePointer<Int>?
      ) -> Int32 = unsafe kvstore_sequence_table
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UInt64, UnsafeMutablePointer<UInt64>?, Int, UnsafeMutablePointer<Int>?
        ) -> Int32
      > = unsafe Exactly(exportSequenceTable)
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UInt64, UnsafePointer<kvstore_prompt_t>?, UInt64, Result
      ) -> Int32 = unsafe kvstore_sequence_restore
    let _:
      Exactly<
        @Sendable (OpaquePointer?, UInt64, UnsafePointer<kvstore_prompt_t>?, UInt64, Result) ->
          Int32
      > = unsafe Exactly(exportSequenceRestore)
  }
  do {
    let _: @convention(c) (OpaquePointer?, UInt64, UInt64, Result) -> Int32 =
      unsafe kvstore_sequence_offload
    let _: Exactly<@Sendable (OpaquePointer?, UInt64, UInt64, Result) -> Int32> =
      unsafe Exactly(exportSequenceOffload)
  }
}
