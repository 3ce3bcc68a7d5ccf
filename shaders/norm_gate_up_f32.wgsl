// h[t, i] = silu(gate) * up; gate = m . w[i, :], up = m . w[I + i, :], m = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * g
// bindings: x [T, K] f32; g [K] f32; w [row_count, K] f32, rows row_start.. of 2 I; h [T, I] f32
// work: workgroup (i, j, t) computes h[t, (i + j * groups.x) * ROWS ..]; WG lanes stride over K
// lib: norm_gemv, chunk_f32, sum_outputs, sigmoid

struct Params { K: u32, I: u32, epsilon: f32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const ROWS: u32 = 1u; // tune
const PRODUCTS: u32 = 2u * ROWS;
const OUTPUTS: u32 = PRODUCTS + 1u;

var<private> first: u32;

// Wraps around below the bound range, so that one comparison with row_count finds rows outside on either side.
fn row_in_range(half: u32, r: u32) -> u32 {
  return half * params.I + min(first + r, params.I - 1u) - params.row_start;
}

fn product_row(r: u32) -> u32 {
  return min(row_in_range(r / ROWS, r % ROWS), params.row_count - 1u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  first = (group.y * groups.x + group.x) * ROWS;
  norm_gemv(group.z, lane);
  if (lane < ROWS && first + lane < params.I) {
    let i = group.z * params.I + first + lane;
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
