// d[t, a, n] = sum_i x[t, a, i] * w[e, n, i] for the slots t * A + a of each expert e, x in two int8 a value
// bindings: x_q [T, A, I / 16, 2, 16] int8, x_d [T, A, I / 32] f32; w_q [row_count, I] int8, w_d [row_count, I / 32] f16,
//   rows row_start.. of E * N; slots [T, A] i32; ends [E] i32; d [T, A, N] f32
// work: workgroup (j, e, z) computes COLUMNS * TN values n for every tile z, z + groups.z, .. of LINES * TM of the
//   slots from ends[e - 1] to ends[e]
// tune: TM x TN products per lane, LINES x 256 / LINES lanes, STEP blocks of 32 values at a time
// lib: grouped_product, grouped, tile_q16, int8_tile

struct Params { T: u32, N: u32, I: u32, A: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x_q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x_d: array<f32>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read> slots: array<i32>;
@group(0) @binding(5) var<storage, read> ends: array<i32>;
@group(0) @binding(6) var<storage, read_write> d: array<f32>;
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
  grouped_product(group, groups.z, lane);
}
