// norm_gate_up: hidden values first .. of row t, ROWS of them: their gate and up rows at once. The caller defines WG, ROWS,
// h, params (K, I, epsilon, row_start, row_count), sigmoid and what norm_gemv takes but for PRODUCTS and OUTPUTS.

const PRODUCTS: u32 = 2u * ROWS;
const OUTPUTS: u32 = PRODUCTS + 1u;

var<private> first_row: u32;

// Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
fn row_in_range(half: u32, r: u32) -> u32 {
  return half * params.I + min(first_row + r, params.I - 1u) - params.row_start;
}

fn product_row(r: u32) -> u32 {
  return min(row_in_range(r / ROWS, r % ROWS), params.row_count - 1u);
}

fn norm_gate_up(t: u32, first: u32, lane: u32) {
  first_row = first;
  norm_gemv(t, lane);
  if (lane < ROWS && first + lane < params.I) {
    let i = t * params.I + first + lane;
    let gate_bound = row_in_range(0u, lane) < params.row_count;
    // Where the gate row and the up row lie in different ranges, the gate's comes first and leaves its product in h.
    var before = norm_totals[lane] * norm_scale();
    if (!gate_bound) {
      before = h[i];
    }
    if (row_in_range(1u, lane) < params.row_count) {
      h[i] = before * sigmoid(before) * norm_totals[ROWS + lane] * norm_scale();
    } else if (gate_bound) {
      h[i] = before;
    }
  }
}
