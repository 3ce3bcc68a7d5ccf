// y[t, n] = sum_k x[t, k] * w[n, k], for many rows of x, rounded to int8.
// bindings: x_q [T, K] int8, x_d [T, K / 16] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows
//   row_start.. of N; y [T, N] f32
// work: workgroup (i, j) computes COLUMNS * TN weight rows from there * i on for LINES * TM rows of x from there * j on
// tune: TM x TN products per lane, LINES x 256 / LINES lanes, STEP blocks of 32 values of K at a time
// lib: tiled, tile_q8, int8_tile

struct Params { T: u32, N: u32, K: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x_q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x_d: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const TM: u32 = 4u; // tune
const TN: u32 = 4u; // tune
const LINES: u32 = 16u; // tune
const STEP: u32 = 1u; // tune

fn finish(t: u32, n: u32, value: f32) {
  y[t * params.N + n] = value;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  first_t = group.y * LINES * TM;
  first_row = group.x * COLUMNS * TN;
  tiled(lane);
}
