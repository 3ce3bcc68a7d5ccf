// h[t, a, i] = silu(gate) * up; gate = x[t, :] . w[e, i, :], up = x[t, :] . w[e, I + i, :], for the slots
// t * A + a of each e, x in two int8 a value
// bindings: x_q [T, K / 16, 2, 16] int8, x_d [T, K / 32] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows
//   row_start.. of E * 2 I; slots [T, A] i32; ends [E] i32; h [T, A, I] f32
// work: workgroup (j, e, z) computes COLUMNS * TN / 2 values i for every tile z, z + groups.z, .. of LINES * TM of the
//   slots from ends[e - 1] to ends[e]
// tune: TM x TN products per lane, LINES x 256 / LINES lanes, STEP blocks of 32 values at a time
// lib: grouped_gate_up, grouped, tile_q16, int8_tile, sigmoid

struct Params { T: u32, K: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x_q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x_d: array<f32>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read> slots: array<i32>;
@group(0) @binding(5) var<storage, read> ends: array<i32>;
@group(0) @binding(6) var<storage, read_write> h: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

const TM: u32 = 4u; // tune
const TN: u32 = 4u; // tune
const LINES: u32 = 16u; // tune
const STEP: u32 = 1u; // tune

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  grouped_gate_up(group, groups.z, lane);
}
