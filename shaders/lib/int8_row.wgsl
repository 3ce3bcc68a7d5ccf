// take_row, round_row: a row of up to MOST values, rounded to int8 in workgroup memory by WG lanes: chunks of 16 with
// the scale max|v| / 127. The four lanes of a quad hold a chunk: what neighbours load lies side by side, and no barrier
// is needed to find the maximum. Word j of chunk c lies at j * PLANE + c, so that lanes which read neighbouring chunks
// read neighbouring words. Beyond the row all is zero. The caller defines WG, MOST, activation(v, seen) (values 4 v ..
// of the row, times `seen`).

const PLANE: u32 = MOST / 16u + 8u;
const HELD: u32 = (MOST / 4u + WG - 1u) / WG;

var<workgroup> row_words: array<u32, 4u * PLANE>;
var<workgroup> row_scales: array<f32, MOST / 16u>;

var<private> held: array<vec4<f32>, HELD>;

// Loads a lane's share of the row's `length` values.
fn take_row(length: u32, lane: u32) {
  let quads = length / 4u;
  for (var i = 0u; i < HELD; i++) {
    // No branch around the loads: it would keep the next from starting early.
    let v = i * WG + lane;
    held[i] = activation(min(v, quads - 1u), select(0.0, 1.0, v < quads));
  }
}

// Rounds what was taken; ends with a barrier.
fn round_row(lane: u32) {
  for (var i = 0u; i < HELD; i++) {
    let v = i * WG + lane;
    let sizes = abs(held[i]);
    var peak = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    peak = max(peak, quadSwapX(peak));
    peak = max(peak, quadSwapY(peak));
    if (v < MOST / 4u) {
      let inverse = select(0.0, 127.0 / max(peak, 1e-30), peak > 1e-30);
      // Beside 1.5 * 2^23 the fraction is rounded away, and the last bits are the whole number's.
      let bits = bitcast<vec4<i32>>(fma(held[i], vec4(inverse), vec4(12582912.0)));
      row_words[v % 4u * PLANE + v / 4u] = pack4xI8(bits);
      if (v % 4u == 0u) {
        row_scales[v / 4u] = peak / 127.0;
      }
    }
  }
  workgroupBarrier();
}
