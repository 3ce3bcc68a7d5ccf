// grouped_product: outputs first .. of one expert, COLUMNS * TN of them, for all slots that chose it. The caller defines TM,
// TN, slots, ends, d, params (T, N, I, A, row_start, row_count) and these libs: grouped and what it takes.

var<private> first: u32;
var<private> expert_row: u32;

fn input_row(slot: u32) -> u32 {
  return slot;
}

fn w_row(n: u32) -> u32 {
  return min(expert_row + min(first + n, params.N - 1u), params.row_count - 1u);
}

fn store(slot: u32, sums: ptr<function, array<array<f32, TN>, TM>>, row: u32, column: u32) {
  for (var j = 0u; j < TN; j++) {
    let n = first + j * COLUMNS + column;
    if (n < params.N && expert_row + n < params.row_count) {
      d[slot * params.N + n] = (*sums)[row][j];
    }
  }
}

fn grouped_product(group: vec3<u32>, shares: u32, lane: u32) {
  first = group.x * COLUMNS * TN;
  // Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
  expert_row = group.y * params.N - params.row_start;
  grouped(group.y, group.z, shares, params.I / 4u, lane);
}
