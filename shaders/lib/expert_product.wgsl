// expert_product: outputs first .. of one expert, 16 * TN of them, for all slots that chose it. The caller defines TM, TN, x
// (array of vec4), experts, d, params (T, N, I, A, row_start, row_count) and these libs: expert_tiled, tile_product, quad_*.

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
    let n = first + j * 16u + column;
    if (n < params.N && expert_row + n < params.row_count) {
      d[slot * params.N + n] = (*sums)[row][j];
    }
  }
}

fn expert_product(expert: u32, block: u32, lane: u32) {
  first = block * 16u * TN;
  // Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
  expert_row = expert * params.N - params.row_start;
  expert_tiled(expert, params.I / 4u, lane);
}
