// h[t, a, i] = silu(gate) * up; gate = x[t, :] . w[e, i, :], up = x[t, :] . w[e, I + i, :], e = experts[t, a]
// bindings: x [T, K] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows row_start.. of E * 2 I;
//   experts [T, A] i32; h [T, A, I] f32
// work: workgroup (j, a, z) computes h[t, a, j * ROWS ..] for t = z, z + groups.z, ..; WG lanes stride over K
// lib: expert_gate_up, chunk_q8_0, sum_outputs, sigmoid

struct Params { T: u32, K: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> experts: array<i32>;
@group(0) @binding(4) var<storage, read_write> h: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 64u; // tune
const ROWS: u32 = 2u; // tune
const OUTPUTS: u32 = 2u * ROWS;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.z; t < params.T; t += groups.z) {
    expert_gate_up(t, group.y, group.x * ROWS, lane);
  }
}
