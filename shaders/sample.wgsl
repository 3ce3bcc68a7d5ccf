// ids[t] ~ softmax(logits[t] / temperature), cut to the top k and then to the nucleus p, drawn by walking ids upwards
// bindings: logits [T, V] f32; seed [1] i32; counter [1] i32; ids [T] i32
// work: one workgroup per row, in strides of the grid. Where only a few ids can be among the top k, they are gathered and
//   drawn from side by side (lib/sample_few). Else a cut is the largest value such that what is not below it reaches a
//   target, k ids or p of the mass (lib/sample_cut), and for the walk each of the 256 lanes owns neighbouring ids
// lib: max, sum, random, sample_cut, sample_few

struct Params { T: u32, V: u32, temperature: f32, top_k: u32, top_p: f32, salt: u32 }

@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> seed: array<i32>;
@group(0) @binding(2) var<storage, read> counter: array<i32>;
@group(0) @binding(3) var<storage, read_write> ids: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 256u;
const FEW: u32 = 128u;
var<workgroup> prefixes: array<f32, WG>;
var<workgroup> drawn: atomic<u32>;
var<workgroup> final_kept: atomic<u32>;

fn logit_at(i: u32) -> f32 {
  return logits[i / 4u][i % 4u];
}

// Draw a row's id by three passes or more over all logits.
fn draw_any(row: u32, random: f32, lane: u32) -> u32 {
  let owned = (params.V + WG - 1u) / WG;
  let first = min(lane * owned, params.V);
  let last = min(first + owned, params.V);
  var largest = -3.4e38;
  for (var n = lane; n < params.V; n += WG) {
    largest = max(largest, logit_at(row + n));
  }
  largest = max_lanes(largest, lane);
  var cut = 0u;
  if (params.top_k > 0u && params.top_k < params.V) {
    cut = find_cut(row, f32(params.top_k), false, largest, 0u, lane);
  }
  if (params.top_p < 1.0) {
    var mass = 0.0;
    for (var n = lane; n < params.V; n += WG) {
      mass += weight_of(logit_at(row + n), largest, cut);
    }
    mass = sum_lanes(mass, lane) * params.top_p;
    cut = max(cut, find_cut(row, max(mass, 1e-30), true, largest, cut, lane));
  }
  var own = 0.0;
  var kept = 0u;
  for (var n = first; n < last; n++) {
    let weight = weight_of(logit_at(row + n), largest, cut);
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
  let draw = random * prefixes[WG - 1u];
  if (prefixes[lane] > draw) {
    var running = select(0.0, prefixes[max(lane, 1u) - 1u], lane > 0u);
    for (var n = first; n < last; n++) {
      running += weight_of(logit_at(row + n), largest, cut);
      if (running > draw) {
        atomicMin(&drawn, n);
        break;
      }
    }
  }
  workgroupBarrier();
  let chosen = min(atomicLoad(&drawn), atomicLoad(&final_kept));
  workgroupBarrier();
  return chosen;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let random = uniform_at(u32(seed[0]), u32(counter[0]), params.salt, t);
    var chosen = params.V;
    if (params.top_k > 0u && params.top_k <= FEW) {
      chosen = draw_few(t * params.V, random, lane);
    }
    if (chosen == params.V) {
      chosen = draw_any(t * params.V, random, lane);
    }
    if (lane == 0u) {
      ids[t] = i32(chosen);
    }
  }
}
