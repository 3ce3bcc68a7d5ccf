// ids[t] ~ softmax(logits[t] / temperature), cut to the top k and then to the nucleus p, drawn by walking ids upwards
// bindings: logits [T, V] f32; seed [1] i32; counter [1] i32; ids [T] i32
// work: one workgroup per row, in strides of the grid. A cut is the largest value such that what is not below it reaches
//   a target (k ids, or p of the mass); it is found from its high bits down, 3 bits a pass. For the walk each of the 256
//   lanes owns neighbouring ids
// lib: max, sum, random

struct Params { T: u32, V: u32, temperature: f32, top_k: u32, top_p: f32, salt: u32 }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> seed: array<i32>;
@group(0) @binding(2) var<storage, read> counter: array<i32>;
@group(0) @binding(3) var<storage, read_write> ids: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 256u;
const DIGITS: u32 = 8u;

var<workgroup> bins: array<f32, DIGITS * WG>;
var<workgroup> prefixes: array<f32, WG>;
var<workgroup> drawn: atomic<u32>;
var<workgroup> final_kept: atomic<u32>;

// Bits that order as the floats do, with -0 equal to 0.
fn rank_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn weight_of(value: f32, largest: f32, cut: u32) -> f32 {
  return select(0.0, exp(value - largest), rank_bits(value) >= cut);
}

// The largest rank whose ids and those above hold `target` of what is measured: ids, or the weights of those above `cut`.
fn find_cut(row: u32, goal: f32, by_weight: bool, largest: f32, cut: u32, lane: u32) -> u32 {
  var prefix = 0u;
  var above = 0.0;
  var remaining = 32u;
  while (remaining > 0u) {
    let taken = min(3u, remaining);
    remaining -= taken;
    for (var digit = 0u; digit < DIGITS; digit++) {
      bins[digit * WG + lane] = 0.0;
    }
    for (var n = lane; n < params.V; n += WG) {
      let value = logits[row + n] / params.temperature;
      let rank = rank_bits(value);
      let digit = (rank - prefix) >> remaining;
      if (rank >= prefix && digit < (1u << taken)) {
        bins[digit * WG + lane] += select(1.0, weight_of(value, largest, cut), by_weight);
      }
    }
    workgroupBarrier();
    // 32 lanes per digit: each adds 8 neighbours' counts, then the first of them the 32 sums.
    let place = lane / 32u * WG + lane % 32u;
    var part = 0.0;
    for (var i = 0u; i < WG; i += 32u) {
      part += bins[place + i];
    }
    workgroupBarrier();
    bins[place] = part;
    workgroupBarrier();
    if (lane % 32u == 0u) {
      for (var i = 1u; i < 32u; i++) {
        part += bins[place + i];
      }
      bins[place] = part;
    }
    workgroupBarrier();
    var digit = (1u << taken) - 1u;
    while (digit > 0u && above + bins[digit * WG] < goal) {
      above += bins[digit * WG];
      digit--;
    }
    prefix += digit << remaining;
    let reached = above + bins[digit * WG];
    workgroupBarrier();
    if (reached == goal) {
      break;
    }
  }
  return prefix;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let owned = (params.V + WG - 1u) / WG;
  let first = min(lane * owned, params.V);
  let last = min(first + owned, params.V);
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.V;
    var largest = -3.4e38;
    for (var n = lane; n < params.V; n += WG) {
      largest = max(largest, logits[row + n] / params.temperature);
    }
    largest = max_lanes(largest, lane);
    var cut = 0u;
    if (params.top_k > 0u && params.top_k < params.V) {
      cut = find_cut(row, f32(params.top_k), false, largest, 0u, lane);
    }
    if (params.top_p < 1.0) {
      var mass = 0.0;
      for (var n = lane; n < params.V; n += WG) {
        mass += weight_of(logits[row + n] / params.temperature, largest, cut);
      }
      mass = sum_lanes(mass, lane) * params.top_p;
      cut = max(cut, find_cut(row, max(mass, 1e-30), true, largest, cut, lane));
    }
    var own = 0.0;
    var kept = 0u;
    for (var n = first; n < last; n++) {
      let weight = weight_of(logits[row + n] / params.temperature, largest, cut);
      own += weight;
      kept = select(kept, n, weight > 0.0);
    }
    if (lane == 0u) {
      atomicStore(&drawn, params.V);
      atomicStore(&final_kept, 0u);
    }
    prefixes[lane] = own;
    workgroupBarrier();
    atomicMax(&final_kept, kept);
    for (var step = 1u; step < WG; step *= 2u) {
      let before = select(0.0, prefixes[lane - min(step, lane)], lane >= step);
      workgroupBarrier();
      prefixes[lane] += before;
      workgroupBarrier();
    }
    let draw = uniform_at(u32(seed[0]), u32(counter[0]), params.salt, t) * prefixes[WG - 1u];
    if (prefixes[lane] > draw) {
      var running = select(0.0, prefixes[max(lane, 1u) - 1u], lane > 0u);
      for (var n = first; n < last; n++) {
        running += weight_of(logits[row + n] / params.temperature, largest, cut);
        if (running > draw) {
          atomicMin(&drawn, n);
          break;
        }
      }
    }
    workgroupBarrier();
    if (lane == 0u) {
      ids[t] = i32(min(atomicLoad(&drawn), atomicLoad(&final_kept)));
    }
    workgroupBarrier();
  }
}
