// gather_row, round_row: a row of up to MOST values, rounded to int8 in workgroup memory by WG lanes: blocks of 32 with the scale
// max|v| / 127. Word j of the 16 values of chunk c lies at j * PLANE + c, so that lanes which read neighbouring chunks read
// neighbouring words. Beyond the row all is zero. The caller defines WG, MOST, activation(v, seen) (values 4 v .. of the row,
// times `seen`, which may add to row_squares).

const PLANE: u32 = MOST / 16u + 8u;
const HELD: u32 = (MOST / 4u + WG - 1u) / WG;
const GATHERERS: u32 = WG / 16u;

var<workgroup> row_words: array<u32, 4u * PLANE>;
var<workgroup> row_peaks: array<f32, MOST / 4u>;
var<workgroup> row_scales: array<f32, MOST / 32u>;
var<workgroup> square_shares: array<f32, WG>;
var<workgroup> square_parts: array<f32, GATHERERS>;

var<private> held: array<vec4<f32>, HELD>;
var<private> row_squares: f32;

// Takes a share of the row's `length` values; ends with a barrier.
fn gather_row(length: u32, lane: u32) {
  let quads = length / 4u;
  for (var i = 0u; i < HELD; i++) {
    let v = i * WG + lane;
    // No branch around the loads: it would keep the next from starting early.
    held[i] = activation(min(v, quads - 1u), select(0.0, 1.0, v < quads));
  }
  for (var i = 0u; i < HELD; i++) {
    let v = i * WG + lane;
    if (v < MOST / 4u) {
      let sizes = abs(held[i]);
      row_peaks[v] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    }
  }
  square_shares[lane] = row_squares;
  workgroupBarrier();
}

// Rounds what was gathered; ends with a barrier.
fn round_row(lane: u32) {
  for (var i = 0u; i < HELD; i++) {
    let v = i * WG + lane;
    if (v < MOST / 4u) {
      let block = v / 8u;
      var peak = row_peaks[8u * block];
      for (var n = 1u; n < 8u; n++) {
        peak = max(peak, row_peaks[8u * block + n]);
      }
      let inverse = select(0.0, 127.0 / max(peak, 1e-30), peak > 1e-30);
      row_words[v % 4u * PLANE + v / 4u] = pack4xI8(vec4<i32>(round(held[i] * inverse)));
      if (v % 8u == 0u) {
        row_scales[block] = peak / 127.0;
      }
    }
  }
  if (lane < GATHERERS) {
    var part = 0.0;
    for (var i = 0u; i < 16u; i++) {
      part += square_shares[i * GATHERERS + lane];
    }
    square_parts[lane] = part;
  }
  workgroupBarrier();
}

// The sum of row_squares over all lanes.
fn square_sum() -> f32 {
  var total = 0.0;
  for (var i = 0u; i < GATHERERS; i++) {
    total += square_parts[i];
  }
  return total;
}
