// product_tiled: a tile of BM gathered rows times BN weight rows by 256 lanes, through slices of BK = 16 values of K in
// workgroup memory. The caller defines LANES_N (lanes along n, a power of two), MB and NB (vec4 of rows and of weight rows
// per lane), gather_quad(u, q) = values 4 q .. of gathered row u, finish_quad(u, n, values), and the lib quad_*.

const BK: u32 = 16u;
const LANES_M: u32 = 256u / LANES_N;
const ROWS_A: u32 = LANES_M * MB;
const ROWS_B: u32 = LANES_N * NB;

// Slices lie transposed, a vec4 of rows for each k, so that an outer product reads whole vectors. The position within a k
// is swizzled: the lanes of a quad store four k at once and would otherwise meet in the same banks.
var<workgroup> tile_a: array<vec4<f32>, ROWS_A * BK>;
var<workgroup> tile_b: array<vec4<f32>, ROWS_B * BK>;

fn place(quad: u32, four: u32) -> u32 {
  return four ^ (quad * 2u);
}

fn weight_or_zero(n: u32, quads: u32, q: u32) -> vec4<f32> {
  return select(vec4<f32>(), weight_quad(n * quads + min(q, quads - 1u)), q < quads);
}

fn gather_or_zero(u: u32, quads: u32, q: u32) -> vec4<f32> {
  return select(vec4<f32>(), gather_quad(u, min(q, quads - 1u)), q < quads);
}

fn product_tiled(group: vec3<u32>, lane: u32, U: u32, N: u32, K: u32) {
  let first_u = group.y * ROWS_A * 4u;
  let first_n = group.x * ROWS_B * 4u;
  let quads = K / 4u;
  let lane_n = lane % LANES_N;
  let lane_m = lane / LANES_N;
  var sums: array<vec4<f32>, MB * NB * 4u>;
  for (var start = 0u; start < quads; start += 4u) {
    for (var block = lane; block < (ROWS_A + ROWS_B) * 4u; block += 256u) {
      let quad = block % 4u;
      let q = start + quad;
      var rows: mat4x4<f32>;
      if (block < ROWS_A * 4u) {
        let u = first_u + block / 4u * 4u;
        rows = transpose(mat4x4<f32>(
          gather_or_zero(min(u, U - 1u), quads, q),
          gather_or_zero(min(u + 1u, U - 1u), quads, q),
          gather_or_zero(min(u + 2u, U - 1u), quads, q),
          gather_or_zero(min(u + 3u, U - 1u), quads, q),
        ));
        let at = quad * 4u * ROWS_A + place(quad, block / 4u);
        tile_a[at] = rows[0];
        tile_a[at + ROWS_A] = rows[1];
        tile_a[at + 2u * ROWS_A] = rows[2];
        tile_a[at + 3u * ROWS_A] = rows[3];
      } else {
        let four = block / 4u - ROWS_A;
        let n = first_n + four * 4u;
        rows = transpose(mat4x4<f32>(
          weight_or_zero(min(n, N - 1u), quads, q),
          weight_or_zero(min(n + 1u, N - 1u), quads, q),
          weight_or_zero(min(n + 2u, N - 1u), quads, q),
          weight_or_zero(min(n + 3u, N - 1u), quads, q),
        ));
        let at = quad * 4u * ROWS_B + place(quad, four);
        tile_b[at] = rows[0];
        tile_b[at + ROWS_B] = rows[1];
        tile_b[at + 2u * ROWS_B] = rows[2];
        tile_b[at + 3u * ROWS_B] = rows[3];
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < BK; k++) {
      var b: array<vec4<f32>, NB>;
      for (var j = 0u; j < NB; j++) {
        b[j] = tile_b[k * ROWS_B + place(k / 4u, j * LANES_N + lane_n)];
      }
      for (var i = 0u; i < MB; i++) {
        let a = tile_a[k * ROWS_A + place(k / 4u, i * LANES_M + lane_m)];
        for (var j = 0u; j < NB; j++) {
          let s = (i * NB + j) * 4u;
          sums[s] += a.x * b[j];
          sums[s + 1u] += a.y * b[j];
          sums[s + 2u] += a.z * b[j];
          sums[s + 3u] += a.w * b[j];
        }
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < MB; i++) {
    for (var j = 0u; j < NB; j++) {
      let n = first_n + (j * LANES_N + lane_n) * 4u;
      for (var r = 0u; r < 4u; r++) {
        let u = first_u + (i * LANES_M + lane_m) * 4u + r;
        if (u < U && n < N) {
          finish_quad(u, n, sums[(i * NB + j) * 4u + r]);
        }
      }
    }
  }
}
