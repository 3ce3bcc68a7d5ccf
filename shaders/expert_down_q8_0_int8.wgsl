// y[t, n] = r[t, n] + sum_a weights[t, a] * sum_i h[t, a, i] * w[experts[t, a], n, i], where h is rounded to int8
// bindings: h [T, A, I] f32; w_q [E, N, I] int8, w_d [E, N, I / 32] f16; experts [T, A] i32; weights [T, A] f32; r [T, N] f32; y [T, N] f32
// work: workgroup (j, t) computes y[t, j * ITEMS * WG / TEAM ..], the slots as one long row; see lib/int8_gemv
// tune: TEAM lanes share a product, ITEMS are taken by each team in turn, MOST is the longest row
// lib: int8_row, int8_gemv

struct Params { N: u32, I: u32, A: u32 }

@group(0) @binding(0) var<storage, read> h: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> experts: array<i32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> r: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

const WG: u32 = 256u; // tune
const TEAM: u32 = 32u; // tune
const ITEMS: u32 = 1u; // tune
const MOST: u32 = 6144u; // tune
const ROWS: u32 = 1u;

var<private> t: u32;

// i / each of a number below 2^16, without a division
fn slot_of(i: u32, each: u32) -> u32 {
  return u32((f32(i) + 0.5) / f32(each));
}

fn activation(v: u32, seen: f32) -> vec4<f32> {
  let weight = weights[t * params.A + slot_of(v, params.I / 4u)];
  return h[t * params.A * params.I / 4u + v] * (weight * seen);
}

fn chunk_place(item: u32, row: u32, chunk: u32) -> u32 {
  let chunks = params.I / 16u;
  let slot = slot_of(chunk, chunks);
  return (u32(experts[t * params.A + slot]) * params.N + item) * chunks + chunk - slot * chunks;
}

fn finish(item: u32, totals: array<f32, ROWS>) {
  let at = t * params.N + item;
  y[at] = r[at] + totals[0];
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  t = group.y;
  let first = group.x * ITEMS * TEAMS;
  let length = params.A * params.I;
  load_item(min(first + lane / TEAM, params.N - 1u), length, lane);
  gather_row(length, lane);
  round_row(lane);
  int8_products(first, params.N, length, lane);
}
