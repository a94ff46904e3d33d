internal import CKVStore

/// As `headerAgreement`, of the functions of side sections.
func headerAgreementOfSections() {
  typealias Prompt = UnsafePointer<kvstore_prompt_t>?
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<CChar>?, UInt64, UInt64,
        UnsafeMutablePointer<OpaquePointer?>?
      ) -> Int32 = unsafe kvstore_section_open
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<CChar>?, UInt64, UInt64,
          UnsafeMutablePointer<OpaquePointer?>?
        ) -> Int32
      > = unsafe Exactly(exportSectionOpen)
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, Prompt, UInt64, UnsafeMutableRawPointer?, Int, UnsafeMutablePointer<Int>?
      ) -> Int32 = unsafe kvstore_section_digest
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, Prompt, UInt64, UnsafeMutableRawPointer?, Int,
          UnsafeMutablePointer<Int>?
        ) -> Int32
      > = unsafe Exactly(exportSectionDigest)
  }
  do {
    let _:
      @convention(c) (
        OpaquePointer?, UnsafePointer<OpaquePointer?>?, Int, Prompt, UInt32, UInt64,
        UnsafeMutablePointer<kvstore_match_t>?
      ) -> Int32 = unsafe kvstore_match_sections
    let _:
      Exactly<
        @Sendable (
          OpaquePointer?, UnsafePointer<OpaquePointer?>?, Int, Prompt, UInt32, UInt64,
          UnsafeMutablePointer<kvstore_match_t>?
        ) -> Int32
      > = unsafe Exactly(exportMatchSections)
  }
}
