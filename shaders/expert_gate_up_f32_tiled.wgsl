// h[t, a, i] = silu(gate) * up; gate = x[t, :] . w[e, i, :], up = x[t, :] . w[e, I + i, :], e = experts[t, a]; for many rows.
// bindings: x [T, K] f32; w [row_count, K] f32, rows row_start.. of E * 2 I; experts [T, A] i32; h [T, A, I] f32
// work: workgroup (j, e) computes h[t, a, i] for 8 * TN values i from 8 * TN * j on and all slots with experts[t, a] = e
// lib: expert_gate_up_tiled, expert_tiled, tile_product, quad_f32, sigmoid

struct Params { T: u32, K: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> experts: array<i32>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const TM: u32 = 2u; // tune
const TN: u32 = 4u; // tune

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  expert_gate_up(group.y, group.x, lane);
}
