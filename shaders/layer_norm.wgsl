// y[t, n] = (x[t, n] - mean) / sqrt(variance + epsilon) * w[n] + b[n], mean and variance of row t
// bindings: x [T, N] f32; w [N] f32; b [N] f32; y [T, N] f32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over N
// The first value of the row is taken off before the mean, so that rows of nearly equal values do not cancel.
// lib: sum

struct Params { T: u32, N: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let count = f32(params.N);
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.N;
    let first = x[row];
    var total = 0.0;
    for (var n = lane; n < params.N; n += WG) {
      total += x[row + n] - first;
    }
    let mean = sum_lanes(total, lane) / count;
    var squares = 0.0;
    for (var n = lane; n < params.N; n += WG) {
      let centred = x[row + n] - first - mean;
      squares += centred * centred;
    }
    let variance = sum_lanes(squares, lane) / count;
    let factor = 1.0 / sqrt(variance + params.epsilon);
    for (var n = lane; n < params.N; n += WG) {
      y[row + n] = (x[row + n] - first - mean) * factor * w[n] + b[n];
    }
  }
}
