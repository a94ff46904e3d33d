/// Something that a request has in another way than the one before it, and that costs what stands behind it.
public struct RequestChange: Sendable, Equatable {
  /// What happened.
  ///
  /// Those that `kvstore inspect why-miss` knows as well have its names.
  public enum Kind: String, Sendable, CaseIterable {
    /// A value that is another one each time: a time, an id, a counter.
    case volatileValue
    /// JSON with its keys in another order.
    case keyOrder
    /// The same but for blanks and line breaks.
    case whiteSpace
    /// The same number, written in another way.
    case numberFormat
    /// The same characters, composed or escaped in another way.
    case unicodeForm
    case toolsAdded
    case toolsRemoved
    case toolsReordered
    case toolChanged
    /// The same parts in another order: skills, rules, messages.
    case reordered
    case edited
    case inserted
    case deleted
    /// The end of a message was cut off.
    case truncated
    /// Several messages became a shorter one.
    case compacted
    /// A tool's result that had been sent was taken out or replaced by something short.
    case toolResultRemoved
    /// A file, or another long text, stands at another place or once more.
    case attachedAgain
    /// The model's reasoning was sent once and then left out.
    case reasoningDropped
    /// A note to the model moved to a later message.
    case reminderMoved
    case modelSwitched
    case adapterSwitched
    case templateSwitched
    /// Another field on which the whole prompt hangs.
    case settingChanged
    /// What differs from conversation to conversation stands before what is the same in all.
    case dynamicBeforeStatic
    /// Nothing changed, but the cache has forgotten the conversation meanwhile.
    case resumedAfterPause
    /// Steps 3 to 10 of a conversation found less than 70 % of their tokens.
    case lowHitRate
  }

  /// What happened.
  public var kind: Kind
  /// What kind of value, of a volatile one.
  public var shape: ValueShape?
  /// The field of the later request: `messages[0].content`.
  public var path: String
  /// Where it stands in the field, in code points; of a field that is no text, in its JSON as it stands.
  public var start: Int
  /// Where it ends there.
  public var end: Int
  /// The field of the earlier request, where there is one.
  public var previousPath: String?
  /// The path without what lies in the value of a field: keys of a call's arguments, of a schema.
  public internal(set) var fieldPath = ""
  /// The same of the earlier request.
  public internal(set) var previousFieldPath: String?
  /// What stands there now: at most the first 256 bytes.
  public var now: String
  /// What stood there before.
  public var was: String
  /// Tokens behind the change, up to the next one, that both requests have and that count as new because of it; estimated.
  public var tokensLost: Int

  /// Where it stands in the prompt, in bytes.
  var position: Int
  /// Where there is no value to take the path of.
  var fixedPath: String?
  /// What stands before it: the same place in other requests has the same.
  var context: UInt64
  /// Nodes and bytes for putting it right.
  var node: Int
  var previousNode: Int?
  /// Of the node's text in the later request, and of the other one's.
  var bytes: Range<Int>?
  var previousBytes: Range<Int>?

  /// The cause, as `kvstore inspect why-miss` and sessions name it.
  public var cause: String {
    switch kind {
    case .volatileValue: "volatileValue"
    case .keyOrder, .toolsReordered, .reordered: "reordered"
    case .toolsAdded, .inserted: "inserted"
    case .toolsRemoved, .deleted, .reasoningDropped, .truncated: "deleted"
    case .attachedAgain, .reminderMoved, .dynamicBeforeStatic: "elsewhere"
    case .modelSwitched, .adapterSwitched, .templateSwitched, .settingChanged: "otherNamespace"
    case .resumedAfterPause: "expired"
    case .whiteSpace, .numberFormat, .unicodeForm, .toolChanged, .edited, .compacted,
      .toolResultRemoved, .lowHitRate:
      "edited"
    }
  }

  /// Nothing of the earlier prompt can be found, however much of it is the same.
  public var isWhole: Bool {
    switch kind {
    case .modelSwitched, .adapterSwitched, .templateSwitched, .settingChanged, .resumedAfterPause:
      true
    default: false
    }
  }

  /// What both prompts have stands in another order in them.
  public var isReordered: Bool {
    switch kind {
    case .reordered, .toolsReordered, .keyOrder, .reminderMoved, .attachedAgain: true
    default: false
    }
  }

  /// What to do about it, in a sentence.
  public var remedy: String {
    switch kind {
    case .volatileValue: "Move the value to the end of the newest user message, or leave it out."
    case .keyOrder: "Serialise JSON with one fixed order of keys, for example sorted."
    case .whiteSpace:
      "Send the text exactly as it was sent before, blanks and line breaks included."
    case .numberFormat: "Write numbers in one way, always."
    case .unicodeForm: "Normalise text once (NFC) and escape it in one way, always."
    case .toolsAdded:
      "Declare all tools from the first request on, and forbid those not yet wanted."
    case .toolsRemoved: "Keep the tool in the list and forbid its use instead of removing it."
    case .toolsReordered: "Send tools in one fixed order, for example by name."
    case .toolChanged:
      "Keep a tool's definition fixed; say what changes in the newest user message."
    case .reordered: "Put the parts in one fixed order, for example by name."
    case .edited: "Append a correction instead of changing what was sent."
    case .inserted: "Append it at the end instead of putting it between earlier messages."
    case .deleted: "Keep what was sent; say at the end that it no longer counts."
    case .truncated: "Shorten a message before it is sent first, never afterwards."
    case .compacted: "Compact seldom and much at a time, behind a front that stays."
    case .toolResultRemoved:
      "Send a placeholder from the start, or keep the result; removing it later pays only once."
    case .attachedAgain: "Attach it once, near the front, and refer to it later."
    case .reasoningDropped: "Keep the reasoning in the history, or leave it out from the start."
    case .reminderMoved: "Leave the note where it was sent, and append a new one."
    case .modelSwitched:
      "Keep a conversation on one model; give a side task a conversation of its own."
    case .adapterSwitched: "Keep a conversation on one adapter."
    case .templateSwitched: "Keep the template and its arguments fixed for a conversation."
    case .settingChanged: "Keep the field fixed for a conversation."
    case .dynamicBeforeStatic: "Put what is always the same first, and what differs behind it."
    case .resumedAfterPause: "Use a longer time to live, keep the cache warm, or keep it on disk."
    case .lowHitRate: "Mend the findings of this conversation, the dearest first."
    }
  }
}
