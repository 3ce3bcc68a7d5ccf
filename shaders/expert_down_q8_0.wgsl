// y[t, n] = r[t, n] + sum_a weights[t, a] * sum_i h[t, a, i] * w[experts[t, a], n, i]
// bindings: h [T, A, I] f32; w_q [row_count, I] int8, w_d [row_count, I / 32] f16, rows row_start.. of E * N;
//   experts [T, A] i32; weights [T, A] f32; r [T, N] f32; y [T, N] f32
// work: workgroup (j, z) computes y[t, j * ROWS ..] for t = z, z + groups.y, ..; WG lanes stride over slots and I
// lib: expert_down, chunk_q8_0, sum_outputs

struct Params { T: u32, N: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> h: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> experts: array<i32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> r: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

const WG: u32 = 64u; // tune
const ROWS: u32 = 4u; // tune
const OUTPUTS: u32 = ROWS;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.y; t < params.T; t += groups.y) {
    expert_down(t, group.x * ROWS, lane);
  }
}
