// y[t, n] = exp(x[t, n] - max_n x[t, n]) / sum_n exp(x[t, n] - max_n x[t, n])
// bindings: x [T, N] f32; y [T, N] f32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over N
// lib: max, sum

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.N;
    var largest = -3.4e38;
    for (var n = lane; n < params.N; n += WG) {
      largest = max(largest, x[row + n]);
    }
    largest = max_lanes(largest, lane);
    var total = 0.0;
    for (var n = lane; n < params.N; n += WG) {
      total += exp(x[row + n] - largest);
    }
    let factor = 1.0 / sum_lanes(total, lane);
    for (var n = lane; n < params.N; n += WG) {
      y[row + n] = exp(x[row + n] - largest) * factor;
    }
  }
}
