// y[t, n] = sum_k x[t, k] * w[n, k], for rows that do not divide into vectors.
// bindings: x [T, K] f32; w [row_count, K] f16, rows row_start.. of N; y [T, N] f32
// work: workgroup (i, j) computes weight rows i * ROWS .. for rows j, j + groups.y, .. of x; WG lanes stride over K
// lib: dot_odd, value_f16, sum_outputs

struct Params { T: u32, N: u32, K: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 64u;
const ROWS: u32 = 4u; // tune
const OUTPUTS: u32 = ROWS;

fn finish(t: u32, n: u32, value: f32) {
  y[t * params.N + n] = value;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.y; t < params.T; t += groups.y) {
    dot_odd(t, group.x * ROWS, lane);
  }
}
