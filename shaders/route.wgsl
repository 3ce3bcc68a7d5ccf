// p = softmax(logits[t, :]); experts[t, :] = the top largest in falling order, the lower id first among equals;
// weights[t, :] = their p, divided by its sum if normalise is set
// bindings: logits [T, E] f32; weights [T, top] f32; experts [T, top] i32
// work: workgroup j does rows t = j, j + groups.x, ..; a lane ranks experts lane, lane + WG, .. against all others
// lib: sum

struct Params { T: u32, E: u32, top: u32, normalise: u32 }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> experts: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const MOST: u32 = 64u; // of top

var<workgroup> chosen: array<u32, MOST>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.E;
    for (var e = lane; e < params.E; e += WG) {
      let own = logits[row + e];
      var rank = 0u;
      for (var other = 0u; other < params.E; other++) {
        let logit = logits[row + other];
        rank += u32(logit > own || (logit == own && other < e));
      }
      if (rank < params.top) {
        chosen[rank] = e;
      }
    }
    workgroupBarrier();
    let largest = logits[row + chosen[0]];
    var share = 0.0;
    for (var i = lane; i < select(params.E, params.top, params.normalise == 1u); i += WG) {
      var e = i;
      if (params.normalise == 1u) {
        e = chosen[i];
      }
      share += exp(logits[row + e] - largest);
    }
    let total = sum_lanes(share, lane);
    for (var i = lane; i < params.top; i += WG) {
      weights[t * params.top + i] = exp(logits[row + chosen[i]] - largest) / total;
      experts[t * params.top + i] = i32(chosen[i]);
    }
    workgroupBarrier();
  }
}
