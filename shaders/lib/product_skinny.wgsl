// product_skinny: COLS gathered rows times ROWS weight rows by 64 lanes that stride over K, for few rows: every weight is
// read once per COLS rows. The caller defines COLS, ROWS, gather_quad(u, q) = values 4 q .. of gathered row u,
// finish(u, n, value) and the lib quad_*.

const WG: u32 = 64u;

var<workgroup> partial: array<f32, COLS * ROWS * WG>;

fn product_skinny(group: vec3<u32>, lane: u32, U: u32, N: u32, K: u32) {
  let first_u = group.y * COLS;
  let first_n = group.x * ROWS;
  let quads = K / 4u;
  var sums: array<f32, COLS * ROWS>;
  for (var q = lane; q < quads; q += WG) {
    var seen: array<vec4<f32>, COLS>;
    for (var c = 0u; c < COLS; c++) {
      seen[c] = gather_quad(min(first_u + c, U - 1u), q);
    }
    for (var r = 0u; r < ROWS; r++) {
      let weights = weight_quad(min(first_n + r, N - 1u) * quads + q);
      for (var c = 0u; c < COLS; c++) {
        sums[c * ROWS + r] += dot(seen[c], weights);
      }
    }
  }
  for (var s = 0u; s < COLS * ROWS; s++) {
    partial[s * WG + (lane ^ (s % WG))] = sums[s];
  }
  workgroupBarrier();
  for (var s = lane; s < COLS * ROWS; s += WG) {
    var total = 0.0;
    for (var i = 0u; i < WG; i++) {
      total += partial[s * WG + (i ^ (s % WG))];
    }
    let u = first_u + s / ROWS;
    let n = first_n + s % ROWS;
    if (u < U && n < N) {
      finish(u, n, total);
    }
  }
}
