// y[t, n] = sum_k x[t, k] * w[n, k], for few rows of x: one workgroup computes ROWS outputs of one row.
// bindings: x [T, K] f32; w [row_count, K] f32, rows row_start.. of N; y [T, N] f32
// work: workgroup (i, t) computes y[t, row_start + i * ROWS ..]; 64 lanes stride over K, then sum in a tree
// lib: sum

struct Params { T: u32, N: u32, K: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 64u;
const ROWS: u32 = 4u; // tune

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = group.y;
  var sums: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    let row = min(group.x * ROWS + r, params.row_count - 1u);
    for (var k = lane; k < params.K; k += WG) {
      sums[r] += x[t * params.K + k] * w[row * params.K + k];
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    let total = sum_lanes(sums[r], lane);
    let row = group.x * ROWS + r;
    if (lane == 0u && row < params.row_count) {
      y[t * params.N + params.row_start + row] = total;
    }
  }
}
