// expert_gate_up_tiled: hidden values first .. of one expert, 8 * TN of them, for all rows that chose it: half of the weight
// rows of a tile are gate rows, the other half the up rows that belong to them. The caller defines TM, TN (even), x (array
// of vec4), experts, h, params (T, K, I, A, row_start, row_count) and these libs: expert_tiled, tile_product, quad_*, sigmoid.

const HALF: u32 = 8u * TN;

var<private> first: u32;
var<private> expert_row: u32;

fn input_row(slot: u32) -> u32 {
  return slot / params.A;
}

fn w_row(n: u32) -> u32 {
  let i = min(first + n % HALF, params.I - 1u);
  return min(expert_row + n / HALF * params.I + i, params.row_count - 1u);
}

fn store(slot: u32, sums: ptr<function, array<array<f32, TN>, TM>>, row: u32, column: u32) {
  for (var j = 0u; j < TN / 2u; j++) {
    let i = first + j * 16u + column;
    if (i < params.I) {
      // Where the gate row and the up row lie in different ranges, the gate's comes first and leaves its product in h.
      var before = (*sums)[row][j];
      if (expert_row + i >= params.row_count) {
        before = h[slot * params.I + i];
      }
      if (expert_row + params.I + i < params.row_count) {
        h[slot * params.I + i] = before * sigmoid(before) * (*sums)[row][j + TN / 2u];
      } else if (expert_row + i < params.row_count) {
        h[slot * params.I + i] = before;
      }
    }
  }
}

fn expert_gate_up(expert: u32, block: u32, lane: u32) {
  first = block * HALF;
  // Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
  expert_row = expert * 2u * params.I - params.row_start;
  expert_tiled(expert, params.K / 4u, lane);
}
