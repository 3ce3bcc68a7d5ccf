// draw_few: draw a row's id when few ids can be among the top k: they are gathered, sorted by id and weighed side by side.
// Each of the 256 lanes finds the largest logit of its stride, two lanes are a group; the k-th largest of these 128
// bounds the k-th largest of all from below, and hardly more than k logits reach it. Returns the id, or V when more than
// 256 do (or none). The caller declares WG = 256, BATCH, params, logits, shares, drawn and final_kept, and takes the lib
// sample_cut (rank_bits, value_of).

const GROUPS: u32 = WG / 2u;
const AT_ONCE: u32 = 8u; // candidates that a lane reads together: behind the last, lists hold what does not count

var<workgroup> group_peaks: array<vec4<f32>, GROUPS / 4u>;
var<workgroup> few_bound: atomic<u32>;
var<workgroup> few_count: atomic<u32>;
var<workgroup> few_values: array<f32, WG>;
var<workgroup> few_ids: array<u32, WG>;
var<workgroup> sorted_values: array<f32, WG>;
var<workgroup> sorted_ids: array<u32, WG>;
var<workgroup> sorted_weights: array<f32, WG>;

// Four logits of a row, far below all where the row starts or ends between them.
fn inside_row(four: vec4<f32>, at: u32, row: u32) -> vec4<f32> {
  let places = vec4(4u * at) + vec4(0u, 1u, 2u, 3u);
  return select(vec4(-3.4e38), four, (places >= vec4(row)) & (places < vec4(row + params.V)));
}

fn gather(value: f32, id: u32, bound: f32) {
  if (value >= bound && value > -3.4e38) {
    let place = atomicAdd(&few_count, 1u);
    if (place < WG) {
      few_values[place] = value;
      few_ids[place] = id;
    }
  }
}

fn draw_few(row: u32, random: f32, lane: u32) -> u32 {
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
  few_values[lane] = -3.4e38;
  few_ids[lane] = 0xffffffffu;
  sorted_values[lane] = -3.4e38;
  sorted_weights[lane] = 0.0;
  if (lane == 0u) {
    atomicStore(&few_count, 0u);
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
  let bound = value_of(atomicLoad(&few_bound));

  for (var base = row / 4u + lane; base < last; base += WG * BATCH) {
    var batch: array<vec4<f32>, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      batch[n] = logits[min(base + n * WG, last - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      let four = inside_row(batch[n], base + n * WG, row);
      let id = 4u * (base + n * WG) - row;
      gather(four.x, id, bound);
      gather(four.y, id + 1u, bound);
      gather(four.z, id + 2u, bound);
      gather(four.w, id + 3u, bound);
    }
  }
  workgroupBarrier();
  let count = atomicLoad(&few_count);
  if (count > WG || count == 0u) {
    return params.V; // uniform: all lanes read the same count
  }

  // Sort by id, and drop what is not among the top k.
  if (lane < count) {
    let value = few_values[lane];
    let id = few_ids[lane];
    var largest = value;
    var larger = 0u;
    var place = 0u;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        larger += select(0u, 1u, few_values[i] > value);
        place += select(0u, 1u, few_ids[i] < id);
        largest = max(largest, few_values[i]);
      }
    }
    sorted_values[place] = value;
    sorted_ids[place] = id;
    sorted_weights[place] = select(0.0, exp((value - largest) / params.temperature), larger < params.top_k);
  }
  if (lane == 0u) {
    atomicStore(&drawn, WG);
    atomicStore(&final_kept, 0u);
  }
  workgroupBarrier();

  var weight = sorted_weights[lane];
  if (params.top_p < 1.0) {
    let value = sorted_values[lane];
    var mass = 0.0;
    var mass_above = 0.0;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        mass += sorted_weights[i];
        mass_above += select(0.0, sorted_weights[i], sorted_values[i] > value);
      }
    }
    if (mass_above > 0.0 && mass_above >= params.top_p * mass) {
      weight = 0.0;
    }
  }
  few_values[lane] = weight;
  workgroupBarrier();
  if (lane < count) {
    var running = 0.0;
    var mass = 0.0;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        mass += few_values[i];
        running = select(running, mass, i <= lane);
      }
    }
    if (running > random * mass) {
      atomicMin(&drawn, lane);
    }
    if (weight > 0.0) {
      atomicMax(&final_kept, lane);
    }
  }
  workgroupBarrier();
  return sorted_ids[min(atomicLoad(&drawn), atomicLoad(&final_kept))];
}
