// d[t, a, n] = sum_i x[t, a, i] * w[experts[t, a], n, i]
// bindings: x [T, A, I] f32; w_q [row_count, I] int8, w_d [row_count, I / 32] f16, rows row_start.. of E * N; experts [T, A] i32; d [T, A, N] f32
// work: workgroup (j, e) computes d[t, a, n] for 16 * TN values n from 16 * TN * j on and all slots with experts[t, a] = e
// lib: expert_product, expert_tiled, tile_product, quad_q8_0

struct Params { T: u32, N: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<u32>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> experts: array<i32>;
@group(0) @binding(4) var<storage, read_write> d: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const TM: u32 = 2u; // tune
const TN: u32 = 4u; // tune

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  expert_product(group.y, group.x, lane);
}
