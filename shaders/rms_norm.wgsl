// y[t, n] = x[t, n] / sqrt(mean_n(x[t, n]^2) + epsilon) * w[n]
// bindings: x [T, N] f32; w [N] f32; y [T, N] f32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over N and hold the first 2048 values meanwhile
// lib: sum

struct Params { T: u32, N: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;
const HELD: u32 = 8u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.N;
    var held: array<f32, HELD>;
    var scales: array<f32, HELD>;
    for (var i = 0u; i < HELD; i++) {
      let n = min(i * WG + lane, params.N - 1u);
      held[i] = x[row + n];
      scales[i] = w[n];
    }
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
      squares += select(0.0, held[i] * held[i], i * WG + lane < params.N);
    }
    for (var n = HELD * WG + lane; n < params.N; n += WG) {
      let value = x[row + n];
      squares += value * value;
    }
    let mean = sum_lanes(squares, lane) / f32(params.N);
    let factor = 1.0 / sqrt(mean + params.epsilon);
    for (var i = 0u; i < HELD; i++) {
      if (i * WG + lane < params.N) {
        y[row + i * WG + lane] = held[i] * factor * scales[i];
      }
    }
    for (var n = HELD * WG + lane; n < params.N; n += WG) {
      y[row + n] = x[row + n] * factor * w[n];
    }
  }
}
