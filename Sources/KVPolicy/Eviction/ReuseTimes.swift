/// How soon blocks are used again, learned for each class, and what it is worth to keep one at its age.
///
/// The worth is the *hit density*: the largest, over all times one might go on keeping the block, of the chance
/// that it is used within that time, divided by the time that it is expected to be held. Where nobody comes back
/// soon, older blocks are worth more than new ones, which no order by recency can express. After Beckmann, Chen
/// and Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density" (NSDI 2018), and the index of Gittins.
///
/// Time is cut into half octaves. The chance of a use in each, given that none came before, is counted use by use;
/// what a class has not seen yet it takes from the classes above it: its neighbour, its part and turn, its part, all. Only sums,
/// products and quotients: the same numbers on every machine.
struct ReuseTimes {
  /// Half octaves, from 0 to 3 days.
  static let bucketCount = 36
  /// Uses after which a class trusts itself more than the classes above it.
  private static let priorWeight = 16.0
  /// The chance of a use in a half octave before anything was seen: the same in each, so that newer is worth more.
  private static let priorHazard = 0.05
  /// Added to the expected time: repeats within seconds do not make a block that is new the densest.
  private static let overheadSeconds = 35.0
  /// Uses after which all counts are halved, so that old habits are forgotten.
  private static let endedCountMax = 1 << 16

  private var uses = Counts()
  /// Uses that came to an end in a bucket: the next came, or is not waited for any more.
  private var ended = Counts()
  /// The part of the bucket in which they ended that was waited for.
  private var waited = Counts()
  private var endedCount = 0
  /// The part of a path that the next use covered; sums for each class.
  private var covered = [Double](repeating: 1, count: ReuseClass.count)
  private var coveredCount = [Double](repeating: 1, count: ReuseClass.count)

  private var hazards = Counts()
  /// Computed when asked for; negative until then.
  private var densities = Counts()

  init() { update(waiting: []) }

  // MARK: Ages

  /// Where a bucket begins, milliseconds: 1000 × (2^(bucket/2) − 1).
  static func lowerEdge(_ bucket: Int) -> Int64 {
    (bucket % 2 == 0 ? 1000 : 1414) << Int64(bucket / 2) - 1000
  }

  static func bucket(_ ageMilliseconds: Int64) -> Int {
    let shifted = max(0, min(ageMilliseconds, lowerEdge(bucketCount) - 1)) + 1000
    let octave = (shifted / 1000).bitWidth - 1 - (shifted / 1000).leadingZeroBitCount
    return 2 * octave + (shifted >= Int64(1414) << Int64(octave) ? 1 : 0)
  }

  private static let edges = (0...bucketCount).map { Double(lowerEdge($0)) / 1000 }

  // MARK: What is seen

  /// Blocks were used again, or are not waited for any more when `coveredPart` is nil.
  mutating func add(_ reuseClass: Int, ageMilliseconds: Int64, coveredPart: Double?) {
    let bucket = Self.bucket(ageMilliseconds)
    ended[reuseClass, bucket] += 1
    if let coveredPart {
      uses[reuseClass, bucket] += 1
      waited[reuseClass, bucket] += 1
      covered[reuseClass] += coveredPart
      coveredCount[reuseClass] += 1
    } else {
      waited[reuseClass, bucket] += Self.part(of: bucket, at: ageMilliseconds)
    }
    endedCount += 1
    if endedCount == Self.endedCountMax { halve() }
  }

  private mutating func halve() {
    uses.halve()
    ended.halve()
    waited.halve()
    for index in covered.indices {
      covered[index] = (covered[index] + 1) / 2
      coveredCount[index] = (coveredCount[index] + 1) / 2
    }
    endedCount /= 2
  }

  private static func part(of bucket: Int, at ageMilliseconds: Int64) -> Double {
    let edge = lowerEdge(bucket)
    return min(1, Double(ageMilliseconds - edge) / Double(lowerEdge(bucket + 1) - edge))
  }

  /// Takes what was seen since into account, and what is still waited for.
  mutating func update(waiting: [(reuseClass: Int, ageMilliseconds: Int64)]) {
    var ended = self.ended
    var waited = self.waited
    for item in waiting {
      let bucket = Self.bucket(item.ageMilliseconds)
      ended[item.reuseClass, bucket] += 1
      waited[item.reuseClass, bucket] += Self.part(of: bucket, at: item.ageMilliseconds)
    }
    var classes = Level(count: ReuseClass.count)
    for index in 0..<ReuseClass.count {
      var later = 0.0
      for bucket in (0..<Self.bucketCount).reversed() {
        classes.uses[index, bucket] = uses[index, bucket]
        classes.waited[index, bucket] = waited[index, bucket] + later
        later += ended[index, bucket]
      }
    }
    let coarse = classes.summed(ReuseClass.coarseIndex)
    let turns = classes.summed(ReuseClass.turnIndex)
    let parts = classes.summed(ReuseClass.partIndex)
    let all = classes.summed { _ in 0 }
    for bucket in 0..<Self.bucketCount {
      let ofAll = all.hazard(0, bucket, prior: Self.priorHazard, Self.priorWeight)
      for index in 0..<ReuseClass.count {
        let (turn, part) = (ReuseClass.turnIndex(index), ReuseClass.partIndex(index))
        let ofPart = parts.hazard(part, bucket, prior: ofAll, Self.priorWeight)
        let ofTurn = turns.hazard(turn, bucket, prior: ofPart, Self.priorWeight)
        let ofCoarse = coarse.hazard(
          ReuseClass.coarseIndex(index),
          bucket,
          prior: ofTurn,
          Self.priorWeight
        )
        hazards[index, bucket] = classes.hazard(index, bucket, prior: ofCoarse, Self.priorWeight)
      }
    }
    densities = Counts(repeating: -1)
  }

  // MARK: What a block is worth

  /// Hits a second that are expected of keeping a block of this age.
  mutating func density(_ reuseClass: Int, ageMilliseconds: Int64) -> Double {
    let bucket = Self.bucket(ageMilliseconds)
    let age = Double(max(0, ageMilliseconds)) / 1000
    let center = Self.center(bucket)
    let neighbor = age < center ? bucket - 1 : bucket + 1
    let own = density(reuseClass, bucket)
    guard (0..<Self.bucketCount).contains(neighbor) else { return own }
    let part = min(1, (age - center) / (Self.center(neighbor) - center))
    return own + (density(reuseClass, neighbor) - own) * part
  }

  private static func center(_ bucket: Int) -> Double { (edges[bucket] + edges[bucket + 1]) / 2 }

  private mutating func density(_ reuseClass: Int, _ bucket: Int) -> Double {
    let known = densities[reuseClass, bucket]
    if known >= 0 { return known }
    var unused = 1.0
    var seconds = Self.overheadSeconds
    var best = 0.0
    for later in bucket..<Self.bucketCount {
      var width = Self.edges[later + 1] - Self.edges[later]
      // The age lies in the middle of its bucket.
      if later == bucket { width /= 2 }
      let left = unused * (1 - min(1, hazards[reuseClass, later]))
      seconds += width * (unused + left) / 2
      unused = left
      best = max(best, (1 - unused) / seconds)
    }
    best *= covered[reuseClass] / coveredCount[reuseClass]
    densities[reuseClass, bucket] = best
    return best
  }
}

extension ReuseTimes {
  /// A number for each class and bucket.
  private struct Counts {
    private var values: [Double]

    init(repeating value: Double = 0, classCount: Int = ReuseClass.count) {
      values = Array(repeating: value, count: classCount * bucketCount)
    }

    subscript(_ index: Int, _ bucket: Int) -> Double {
      get { values[index * bucketCount + bucket] }
      set { values[index * bucketCount + bucket] = newValue }
    }

    mutating func halve() { for index in values.indices { values[index] /= 2 } }
  }

  /// Classes, or classes of classes.
  private struct Level {
    var uses: Counts
    /// How many were waited for in a bucket.
    var waited: Counts

    init(count: Int) {
      uses = Counts(classCount: count)
      waited = Counts(classCount: count)
    }

    func summed(_ group: (Int) -> Int) -> Level {
      var sum = Level(count: group(ReuseClass.count - 1) + 1)
      for index in 0..<ReuseClass.count {
        for bucket in 0..<bucketCount {
          sum.uses[group(index), bucket] += uses[index, bucket]
          sum.waited[group(index), bucket] += waited[index, bucket]
        }
      }
      return sum
    }

    func hazard(_ index: Int, _ bucket: Int, prior: Double, _ priorWeight: Double) -> Double {
      (uses[index, bucket] + priorWeight * prior) / (waited[index, bucket] + priorWeight)
    }
  }
}
