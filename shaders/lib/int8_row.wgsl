// take_row, round_row: a row of up to MOST values, rounded to int8 in workgroup memory by WG lanes: chunks of 16 with
// the scale max|v| / 127. A lane takes whole chunks, so that none needs what another has found, and one barrier is
// enough. Word j of chunk c lies at j * PLANE + c, so that lanes which read neighbouring chunks read neighbouring
// words. Beyond the row all is zero. The caller defines WG, MOST, activation(v, seen) (values 4 v .. of the row, times
// `seen`, which may add to row_squares).

const PLANE: u32 = MOST / 16u + 8u;
const HELD: u32 = (MOST / 16u + WG - 1u) / WG;
const GATHERERS: u32 = 16u;

var<workgroup> row_words: array<u32, 4u * PLANE>;
var<workgroup> row_scales: array<f32, MOST / 16u>;
var<workgroup> square_shares: array<f32, WG>;
var<workgroup> square_parts: array<f32, GATHERERS>;

var<private> held: array<array<vec4<f32>, 4>, HELD>;
var<private> row_squares: f32;

// Loads a lane's share of the row's `length` values.
fn take_row(length: u32, lane: u32) {
  let chunks = length / 16u;
  for (var i = 0u; i < HELD; i++) {
    let chunk = i * WG + lane;
    // No branch around the loads: it would keep the next from starting early.
    for (var j = 0u; j < 4u; j++) {
      held[i][j] = activation(4u * min(chunk, chunks - 1u) + j, select(0.0, 1.0, chunk < chunks));
    }
  }
}

// Rounds what was taken; ends with a barrier. square_sum is right behind another one.
fn round_row(lane: u32) {
  for (var i = 0u; i < HELD; i++) {
    let chunk = i * WG + lane;
    if (chunk < MOST / 16u) {
      let sizes = max(max(abs(held[i][0]), abs(held[i][1])), max(abs(held[i][2]), abs(held[i][3])));
      let peak = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
      let inverse = select(0.0, 127.0 / max(peak, 1e-30), peak > 1e-30);
      for (var j = 0u; j < 4u; j++) {
        // Beside 1.5 * 2^23 the fraction is rounded away, and the last bits are the whole number's.
        row_words[j * PLANE + chunk] = pack4xI8(bitcast<vec4<i32>>(fma(held[i][j], vec4(inverse), vec4(12582912.0))));
      }
      row_scales[chunk] = peak / 127.0;
    }
  }
  square_shares[lane] = row_squares;
  workgroupBarrier();
  if (lane < GATHERERS) {
    var part = 0.0;
    for (var i = 0u; i < WG / GATHERERS; i++) {
      part += square_shares[i * GATHERERS + lane];
    }
    square_parts[lane] = part;
  }
}

// The sum of row_squares over all lanes.
fn square_sum() -> f32 {
  var total = 0.0;
  for (var i = 0u; i < GATHERERS; i++) {
    total += square_parts[i];
  }
  return total;
}
