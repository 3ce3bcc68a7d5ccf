// grouped_gate_up: hidden values first .. of one expert, COLUMNS * TN / 2 of them, for all rows that chose it: half of the
// weight rows of a tile are gate rows, the other half the up rows that belong to them. The caller defines TM, TN (even),
// slots, ends, h, params (T, K, I, A, row_start, row_count) and these libs: grouped and what it takes, sigmoid.

const HALF: u32 = COLUMNS * TN / 2u;

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
    let i = first + j * COLUMNS + column;
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

fn grouped_gate_up(group: vec3<u32>, shares: u32, lane: u32) {
  first = group.x * HALF;
  // Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
  expert_row = group.y * 2u * params.I - params.row_start;
  grouped(group.y, group.z, shares, params.K / 4u, lane);
}
