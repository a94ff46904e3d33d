/// What a value looks like that a program writes anew for each request.
///
/// It is told by its shape, on both sides of a change, and not by the name of its field.
public enum ValueShape: String, Sendable, CaseIterable {
  case time, date, uuid, hash, id, counter, host, path, value

  /// In words, with an article.
  public var text: String {
    switch self {
    case .time: "a time"
    case .date: "a date"
    case .uuid: "a UUID"
    case .hash: "a hash"
    case .id: "an id"
    case .counter: "a counter"
    case .host: "a host name"
    case .path: "a folder"
    case .value: "a value"
    }
  }

  /// The shape that both texts have, nil when one of them is words.
  static func common(old: ArraySlice<UInt8>, new: ArraySlice<UInt8>) -> ValueShape? {
    let (before, after) = (trimmed(old), trimmed(new))
    guard !before.isEmpty, !after.isEmpty, before.count <= 512, after.count <= 512 else {
      return nil
    }
    guard let a = shape(before), let b = shape(after) else { return nil }
    if a == b {
      return a == .counter && !isCount(before, after) ? nil : a
    }
    // An hour that became a day, or an id that for once has no digit in it.
    switch (a, b) {
    case (.time, .date), (.date, .time), (.counter, .time), (.time, .counter): return .time
    case (.counter, .date), (.date, .counter): return .date
    case (.host, .path), (.path, .host), (.uuid, .path), (.path, .uuid): return .path
    // 0653e1 and 9d3ff9: a hash that for once reads as a number.
    case (.hash, _), (_, .hash): return before.count == after.count ? .hash : .id
    default: return [a, b].contains(.counter) && before.count < 7 ? nil : .id
    }
  }

  /// Numbers that are counted up, or are too long to be said by people.
  private static func isCount(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Bool {
    guard let before = JSONNumber.value(a), let after = JSONNumber.value(b) else { return true }
    if max(a.count, b.count) >= 5 { return true }
    // 4711 and 6203 were counted or measured; what people write is round.
    func isRound(_ number: Double) -> Bool {
      let unit = number < 1_000 ? 10.0 : 100.0
      return number / unit == (number / unit).rounded()
    }
    if min(a.count, b.count) >= 3, !isRound(before), !isRound(after) { return true }
    // Whole numbers that go up by little; 100 words that become 200 are an edit.
    return before == before.rounded() && after > before && after - before <= 16
  }

  static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    func isEdge(_ byte: UInt8) -> Bool {
      TextTokens.isBlank(byte) || "\"'`()[]{}<>,;=*".utf8.contains(byte)
    }
    var text = text.drop(while: isEdge)
    while let last = text.last, isEdge(last) || last == UInt8(ascii: ".") {
      text.removeLast()
    }
    return text
  }

  /// The shape of one value; nil for words.
  static func shape(_ text: ArraySlice<UInt8>) -> ValueShape? {
    let words = text.split(whereSeparator: TextTokens.isBlank)
    guard words.count <= 12 else { return nil }
    if let moment = Moment.shape(words) { return moment }
    guard words.count == 1, let word = words.first else {
      // Several values side by side: all have to be some.
      let shapes = words.map { shape(trimmed($0)) }
      guard !shapes.isEmpty, shapes.allSatisfy({ $0 != nil }) else { return nil }
      return shapes[0]
    }
    let digits = word.count(where: JSONNumber.isDigit)
    let letters = word.count { TextTokens.isWord($0) } - digits
    if word.contains(where: TextTokens.isIdeograph) { return nil }
    if isUUID(word) { return .uuid }
    if digits == word.count || JSONNumber.value(word) != nil {
      return isUnixTime(word) ? .time : .counter
    }
    if isAddress(word) { return .host }
    // 187,402
    if word.allSatisfy({ JSONNumber.isDigit($0) || $0 == UInt8(ascii: ",") }) { return .counter }
    // 2.1.7
    if word.allSatisfy({ JSONNumber.isDigit($0) || $0 == UInt8(ascii: ".") }) { return .value }
    let slashes = word.count { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") }
    if slashes >= 1, word.count >= 4, slashes >= 2 || digits > 0 || word.first == UInt8(ascii: "/")
    {
      return .path
    }
    if word.count >= 6, word.allSatisfy({ JSONEscapes.digit($0) != nil }), digits > 0, letters > 0 {
      return .hash
    }
    let joints = word.count { "-_.:@+/".utf8.contains($0) }
    if digits > 0, letters > 0, joints > 0,
      word.contains(UInt8(ascii: "-")) || word.contains(UInt8(ascii: ".")),
      !word.contains(UInt8(ascii: "_")), isHostLike(word)
    {
      return .host
    }
    if digits > 0, letters > 0, word.count >= 4 { return .id }
    // 48.1374,11.5755
    if digits >= 6, letters == 0 { return .value }
    // Random letters without a digit, as base 64 has them: upper and lower case mixed in the middle.
    if word.count >= 16, joints <= 2, mixes(word) { return .id }
    return nil
  }

  private static func isUUID(_ word: ArraySlice<UInt8>) -> Bool {
    let groups = word.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
    return groups.map(\.count) == [8, 4, 4, 4, 12]
      && word.allSatisfy { $0 == UInt8(ascii: "-") || JSONEscapes.digit($0) != nil }
  }

  /// Seconds or milliseconds since 1970, between 2001 and 2100.
  private static func isUnixTime(_ word: ArraySlice<UInt8>) -> Bool {
    guard let value = JSONNumber.value(word) else { return false }
    return (1e9..<4.2e9).contains(value) || (1e12..<4.2e12).contains(value)
  }

  private static func isAddress(_ word: ArraySlice<UInt8>) -> Bool {
    let host = word.split(separator: UInt8(ascii: ":"))
    guard let first = host.first, host.count <= 2 else { return false }
    let parts = first.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    return parts.count == 4
      && parts.allSatisfy { (1...3).contains($0.count) && $0.allSatisfy(JSONNumber.isDigit) }
  }

  private static func isHostLike(_ word: ArraySlice<UInt8>) -> Bool {
    let parts = word.split { "-.:".utf8.contains($0) }
    return parts.count >= 2 && !word.contains(UInt8(ascii: "/"))
      && parts.allSatisfy { $0.count <= 20 && !isRandom($0) }
      && parts.contains { $0.allSatisfy { !JSONNumber.isDigit($0) } }
  }

  /// Letters and digits mixed at length: part of an id or a key, and of no name.
  private static func isRandom(_ part: ArraySlice<UInt8>) -> Bool {
    let digits = part.count(where: JSONNumber.isDigit)
    return part.count >= 10 && digits > 2 && digits < part.count
  }

  private static func mixes(_ word: ArraySlice<UInt8>) -> Bool {
    guard word.allSatisfy({ $0 < 0x80 }) else { return false }
    var changes = 0
    for (a, b) in zip(word, word.dropFirst()) where a & 0x20 != b & 0x20 { changes += 1 }
    return changes >= 4
  }
}

/// Dates and times as people and programs write them.
enum Moment {
  /// Months and days of the week.
  private static let names: Set<String> = Set(
    """
    jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august september october november \
    december mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday sunday \
    januar februar märz mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag \
    janvier février mars avril juin juillet août septembre octobre novembre décembre lundi mardi mercredi jeudi vendredi samedi \
    dimanche enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre lunes martes miércoles \
    jueves viernes sábado domingo janeiro fevereiro março maio junho julho setembro outubro novembro dezembro segunda-feira \
    terça-feira quarta-feira quinta-feira sexta-feira gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre \
    lunedì martedì mercoledì giovedì venerdì sabato domenica januari februari maart mei augustus maandag dinsdag woensdag \
    donderdag vrijdag zaterdag zondag января февраля марта апреля мая июня июля августа сентября октября ноября декабря \
    понедельник вторник среда четверг пятница суббота воскресенье \
    stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia poniedziałek wtorek środa \
    czwartek piątek sobota niedziela ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık pazartesi salı \
    çarşamba perşembe cuma cumartesi pazar 월요일 화요일 수요일 목요일 금요일 토요일 일요일 \
    जनवरी फरवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर सोमवार मंगलवार बुधवार गुरुवार शुक्रवार शनिवार रविवार \
    يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد 月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日 星期一 星期二 星期三 星期四 \
    星期五 星期六 星期日 周一 周二 周三 周四 周五 周六 周日
    """.split(separator: " ").map(String.init)
  )
  private static let zones: Set<String> = [
    "am", "pm", "utc", "gmt", "z", "cet", "cest", "est", "edt", "pst", "pdt", "at", "of", "the",
    "t", "a.m", "p.m", "uhr", "um", "de", "le", "les", "à", "el", "la", "las", "às", "den", "der",
    "г", "в", "h",
  ]
  private static let units: [[UInt8]] = ["年", "月", "日", "号", "時", "时", "分", "秒"].map {
    Array($0.utf8)
  }

  /// A character behind the number in a Chinese or Japanese date.
  static func isUnit(_ character: ArraySlice<UInt8>) -> Bool {
    units.contains { $0.elementsEqual(character) }
  }

  /// What some words are together: a time, a date, or neither.
  static func shape(_ words: [ArraySlice<UInt8>]) -> ValueShape? {
    var hasTime = false
    var hasDate = false
    for word in words {
      switch part(word) {
      case .time: hasTime = true
      case .date, .name: hasDate = true
      case .filler, .number: break
      case .none: return nil
      }
    }
    return hasTime ? .time : hasDate ? .date : nil
  }

  enum Part { case time, date, name, number, filler, none }

  /// What one word is in a date or time.
  static func part(_ raw: ArraySlice<UInt8>) -> Part {
    let word = ValueShape.trimmed(raw)
    guard !word.isEmpty, word.count <= 40 else { return word.isEmpty ? .filler : .none }
    let text = String(decoding: word, as: UTF8.self).lowercased()
    if names.contains(text) { return .name }
    if zones.contains(text) { return .filler }
    let digits = word.count(where: JSONNumber.isDigit)
    guard digits > 0 else { return .none }
    if digits == word.count { return digits <= 4 ? .number : .none }
    if word.contains(where: TextTokens.isIdeograph) {
      guard text.allSatisfy({ $0.isWholeNumber || isUnit(Array(String($0).utf8)[...]) }) else {
        return .none
      }
      return text.contains { "時时分秒".contains($0) } ? .time : .date
    }
    if ["st", "nd", "rd", "th"].contains(where: text.hasSuffix), digits == word.count - 2 {
      return .number
    }
    let isDateTime = word.allSatisfy {
      JSONNumber.isDigit($0) || "-:./+tTzZ".utf8.contains($0)
    }
    if isDateTime {
      let groups = word.split { !JSONNumber.isDigit($0) }
      guard groups.count >= 2, groups.allSatisfy({ $0.count <= 9 }) else { return .none }
      let colons = word.count { $0 == UInt8(ascii: ":") }
      if colons > 0, groups.allSatisfy({ $0.count <= 4 || $0.count >= 6 }) {
        return groups[0].count <= 4 ? .time : .none
      }
      let dashes = word.count { $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "/") }
      if groups.count == 3, dashes == 2, groups.contains(where: { $0.count == 4 || $0.count == 2 }),
        groups.allSatisfy({ $0.count <= 4 })
      {
        return .date
      }
      if groups.count == 3, dashes == 0, word.count(where: { $0 == UInt8(ascii: ".") }) == 2,
        groups[2].count == 4
      {
        return .date
      }
      return .none
    }
    // 9:41pm
    if text.hasSuffix("am") || text.hasSuffix("pm"),
      text.dropLast(2).allSatisfy({ $0.isNumber || $0 == ":" })
    {
      return .time
    }
    return .none
  }
}
