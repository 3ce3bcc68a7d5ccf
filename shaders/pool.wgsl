// mean[n] = sum_t a[t] x[t, n]; deviation[n] = sqrt(max(sum_t a[t] (x[t, n] - mean[n])^2, 1e-12));
// a = softmax_t(logits[t, n])
// bindings: x [T, N] f32; logits [T, N] f32; mean [1, N] f32; deviation [1, N] f32
// work: a workgroup computes one channel; 64 lanes stride over the rows three times, for maximum, mean and deviation
// lib: sum

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> deviation: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 64u;

var<workgroup> tops: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var top = -3.4e38;
  for (var t = lane; t < params.T; t += WG) {
    top = max(top, logits[t * params.N + n]);
  }
  tops[lane] = top;
  workgroupBarrier();
  for (var i = 0u; i < WG; i++) {
    top = max(top, tops[i]);
  }
  var weight = 0.0;
  var weighted = 0.0;
  for (var t = lane; t < params.T; t += WG) {
    let a = exp(logits[t * params.N + n] - top);
    weight += a;
    weighted += a * x[t * params.N + n];
  }
  let total = sum_lanes(weight, lane);
  let centre = sum_lanes(weighted, lane) / total;
  var squares = 0.0;
  for (var t = lane; t < params.T; t += WG) {
    let distance = x[t * params.N + n] - centre;
    squares += exp(logits[t * params.N + n] - top) * distance * distance;
  }
  let variance = sum_lanes(squares, lane) / total;
  if (lane == 0u) {
    mean[n] = centre;
    deviation[n] = sqrt(max(variance, 1e-12));
  }
}
