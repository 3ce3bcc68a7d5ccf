// product_tiled: a tile of 4 ROWS_A gathered rows times 4 ROWS_B weight rows by 256 lanes, through slices of BK values of K
// in workgroup memory. The caller defines LANES_N (lanes along n, a power of two), MB and NB (vec4 of rows and of weight
// rows per lane), gather_quad(u, q) = values 4 q .. of gathered row u, finish_quad(u, n, values), and the lib quad_*.

const BK: u32 = 16u;
const LANES_M: u32 = 256u / LANES_N;
const ROWS_A: u32 = LANES_M * MB;
const ROWS_B: u32 = LANES_N * NB;
const BLOCKS: u32 = ((ROWS_A + ROWS_B) * 4u + 255u) / 256u; // blocks of 4 rows x 4 k that a lane brings per slice

// Slices lie transposed, a vec4 of rows for each k, so that an outer product reads whole vectors. The position within a k
// is swizzled: the lanes that store a quad of k at once would otherwise meet in the same banks.
var<workgroup> slices: array<vec4<f32>, (ROWS_A + ROWS_B) * BK>;

fn place(quad: u32, four: u32) -> u32 {
  return four ^ (quad * 2u);
}

// Four rows of a block: of gathered rows first, then of weights; zero beyond K.
fn bring(block: u32, first_u: u32, first_n: u32, start: u32, size: vec3<u32>) -> mat4x4<f32> {
  let q = start + block % 4u;
  var rows: mat4x4<f32>;
  if (q < size.z) {
    if (block < ROWS_A * 4u) {
      let u = first_u + block / 4u * 4u;
      rows[0] = gather_quad(min(u, size.x - 1u), q);
      rows[1] = gather_quad(min(u + 1u, size.x - 1u), q);
      rows[2] = gather_quad(min(u + 2u, size.x - 1u), q);
      rows[3] = gather_quad(min(u + 3u, size.x - 1u), q);
    } else {
      let n = first_n + (block / 4u - ROWS_A) * 4u;
      rows[0] = weight_quad(min(n, size.y - 1u) * size.z + q);
      rows[1] = weight_quad(min(n + 1u, size.y - 1u) * size.z + q);
      rows[2] = weight_quad(min(n + 2u, size.y - 1u) * size.z + q);
      rows[3] = weight_quad(min(n + 3u, size.y - 1u) * size.z + q);
    }
  }
  return transpose(rows);
}

fn keep(block: u32, columns: mat4x4<f32>) {
  let left = block < ROWS_A * 4u;
  let rows = select(ROWS_B, ROWS_A, left);
  let four = block / 4u - select(ROWS_A, 0u, left);
  let at = select(ROWS_A * BK, 0u, left) + block % 4u * 4u * rows + place(block % 4u, four);
  for (var k = 0u; k < 4u; k++) {
    slices[at + k * rows] = columns[k];
  }
}

fn product_tiled(group: vec3<u32>, lane: u32, U: u32, N: u32, K: u32) {
  let first_u = group.y * ROWS_A * 4u;
  let first_n = group.x * ROWS_B * 4u;
  let size = vec3<u32>(U, N, K / 4u);
  let lane_n = lane % LANES_N;
  let lane_m = lane / LANES_N;
  var sums: array<vec4<f32>, MB * NB * 4u>;
  var next: array<mat4x4<f32>, BLOCKS>;
  for (var i = 0u; i < BLOCKS; i++) {
    next[i] = bring(lane + i * 256u, first_u, first_n, 0u, size);
  }
  for (var start = 0u; start < size.z; start += 4u) {
    for (var i = 0u; i < BLOCKS; i++) {
      if (lane + i * 256u < (ROWS_A + ROWS_B) * 4u) {
        keep(lane + i * 256u, next[i]);
      }
    }
    workgroupBarrier();
    // The next slice is under way while this one is multiplied.
    for (var i = 0u; i < BLOCKS; i++) {
      next[i] = bring(lane + i * 256u, first_u, first_n, start + 4u, size);
    }
    for (var k = 0u; k < BK; k++) {
      var b: array<vec4<f32>, NB>;
      for (var j = 0u; j < NB; j++) {
        b[j] = slices[ROWS_A * BK + k * ROWS_B + place(k / 4u, j * LANES_N + lane_n)];
      }
      for (var i = 0u; i < MB; i++) {
        let a = slices[k * ROWS_A + place(k / 4u, i * LANES_M + lane_m)];
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
  for (var s = 0u; s < MB * NB * 4u; s++) {
    let n = first_n + (s / 4u % NB * LANES_N + lane_n) * 4u;
    let u = first_u + (s / 4u / NB * LANES_M + lane_m) * 4u + s % 4u;
    if (u < U && n < N) {
      finish_quad(u, n, sums[s]);
    }
  }
}
