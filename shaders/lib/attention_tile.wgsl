// add_scores, fade_rows, add_values, finish_rows: the loops over rows of attend_tile. They stand in functions of their own,
// because compilers that do not unroll a nest of loops move its arrays out of the registers. The caller declares ROWS,
// QUERIES (32 or 64), params (T, H, D) and y.

const LANES: u32 = 128u;
const KEYS: u32 = 32u;
const PITCH: u32 = 9u; // 8 vectors and one that keeps neighbouring rows in different banks
const SCORED: u32 = QUERIES / 16u;
const QUERY_VECTORS: u32 = QUERIES * PITCH;
const KEY_VECTORS: u32 = KEYS * PITCH;
const PEAKS: u32 = QUERIES * 8u;

var<workgroup> query_tile: array<vec4<f32>, QUERY_VECTORS>; // afterwards weights: of keys column, column + 8, ..
var<workgroup> key_tile: array<vec4<f32>, KEY_VECTORS>;
var<workgroup> peaks: array<f32, PEAKS>;
var<workgroup> fades: array<f32, QUERIES>;

alias Rows = array<vec4<f32>, ROWS>;
alias Scores = array<vec4<f32>, SCORED>;
alias Stats = array<f32, SCORED>;

fn add_scores(scores: ptr<function, Scores>, line: u32, column: u32, i: u32) {
  let key_0 = key_tile[column * PITCH + i];
  let key_1 = key_tile[(column + 8u) * PITCH + i];
  let key_2 = key_tile[(column + 16u) * PITCH + i];
  let key_3 = key_tile[(column + 24u) * PITCH + i];
  for (var r = 0u; r < SCORED; r++) {
    let part = query_tile[(line + 16u * r) * PITCH + i];
    (*scores)[r] += vec4(dot(part, key_0), dot(part, key_1), dot(part, key_2), dot(part, key_3));
  }
}

fn fade_rows(rows: ptr<function, Rows>, first: u32) {
  for (var r = 0u; r < ROWS; r++) {
    (*rows)[r] *= fades[min(first + r, QUERIES - 1u)];
  }
}

fn add_values(rows: ptr<function, Rows>, first: u32, part: u32, values: mat4x4<f32>) {
  for (var r = 0u; r < ROWS; r++) {
    (*rows)[r] += values * query_tile[min(first + r, QUERIES - 1u) * PITCH + part];
  }
}

fn finish_rows(rows: ptr<function, Rows>, first: u32, queries: u32, t_first: u32, place: u32) {
  for (var r = 0u; r < ROWS; r++) {
    if (first + r < queries && t_first + first + r < params.T) {
      y[(t_first + first + r) * params.H * params.D / 4u + place] = (*rows)[r] * fades[min(first + r, QUERIES - 1u)];
    }
  }
}
