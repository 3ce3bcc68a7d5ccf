// h[t, i] = silu(gate) * up; gate = m . w[i, :], up = m . w[I + i, :], m = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * g
// bindings: x [T, K] f32; g [K] f32; w [row_count, K] f32, rows row_start.. of 2 I; h [T, I] f32
// work: workgroup (i, j, t) computes h[t, (i + j * groups.x) * ROWS ..]; WG lanes stride over K
// lib: norm_gate_up, norm_gemv, chunk_f32, sum_outputs, sigmoid

struct Params { K: u32, I: u32, epsilon: f32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const ROWS: u32 = 1u; // tune

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  norm_gate_up(group.z, (group.y * groups.x + group.x) * ROWS, lane);
}
