// top_bound: a logit that the k-th largest of a row is not below, and hardly more than k logits reach, k = params.top_k up to
// 128; ends with a barrier. Each of the 256 lanes finds the largest logit of its stride, two lanes are a group, and the k-th
// largest of these 128 is the bound. The caller declares WG = 256, BATCH, params, logits, shares, and takes the lib
// sample_cut (rank_bits, value_of).

const GROUPS: u32 = WG / 2u;

var<workgroup> group_peaks: array<vec4<f32>, GROUPS / 4u>;
var<workgroup> few_bound: atomic<u32>;

// Four logits of a row, far below all where the row starts or ends between them.
fn inside_row(four: vec4<f32>, at: u32, row: u32) -> vec4<f32> {
  let places = vec4(4u * at) + vec4(0u, 1u, 2u, 3u);
  return select(vec4(-3.4e38), four, (places >= vec4(row)) & (places < vec4(row + params.V)));
}

fn top_bound(row: u32, lane: u32) -> f32 {
  let last = (row + params.V + 3u) / 4u;
  var own = -3.4e38;
  for (var base = row / 4u + lane; base < last; base += WG * BATCH) {
    var batch: array<vec4<f32>, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      batch[n] = logits[min(base + n * WG, last - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      let four = inside_row(batch[n], base + n * WG, row);
      own = max(own, max(max(four.x, four.y), max(four.z, four.w)));
    }
  }
  shares[lane] = own;
  if (lane == 0u) {
    atomicStore(&few_bound, 0xffffffffu);
  }
  workgroupBarrier();
  if (lane < GROUPS / 4u) {
    let at = 4u * lane;
    let other = GROUPS + at;
    let peaks = vec4(shares[at], shares[at + 1u], shares[at + 2u], shares[at + 3u]);
    group_peaks[lane] = max(peaks, vec4(shares[other], shares[other + 1u], shares[other + 2u], shares[other + 3u]));
  }
  workgroupBarrier();
  if (lane < GROUPS) {
    let peak = group_peaks[lane / 4u][lane % 4u];
    var above = vec4<u32>();
    for (var i = 0u; i < GROUPS / 4u; i++) {
      above += select(vec4(0u), vec4(1u), group_peaks[i] > vec4(peak));
    }
    if (above.x + above.y + above.z + above.w < params.top_k) {
      atomicMin(&few_bound, rank_bits(peak));
    }
  }
  workgroupBarrier();
  return value_of(atomicLoad(&few_bound));
}
