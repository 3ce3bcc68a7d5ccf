// attend_tile: the queries of a tile of one head against their visible keys, by 256 lanes, 32 keys at a time.
// Scores: 8 lanes share a query, each takes the keys j, j + 8, j + 16, j + 24; queries and keys pass through shared memory
// 32 elements of D at a time. Values: a lane owns four elements of D of ROWS neighbouring queries.
// Loops over rows stand in functions of their own, because compilers that do not unroll a nest of loops move its arrays
// out of the registers. The caller declares ROWS, params, q, length, y, key_at and value_at, and takes the lib visible.

const LANES: u32 = 256u;
const TILE: u32 = 32u;
const PITCH: u32 = 9u; // 8 vectors and one that keeps neighbouring rows in different banks

var<workgroup> query_tile: array<vec4<f32>, TILE * PITCH>;
var<workgroup> key_tile: array<vec4<f32>, TILE * PITCH>;
var<workgroup> weights: array<vec4<f32>, LANES>;
var<workgroup> lane_values: array<f32, LANES>;
var<workgroup> fades: array<f32, TILE>;

alias Rows = array<vec4<f32>, ROWS>;

fn fade_rows(rows: ptr<function, Rows>, first: u32) {
  for (var r = 0u; r < ROWS; r++) {
    (*rows)[r] *= fades[min(first + r, TILE - 1u)];
  }
}

fn add_values(rows: ptr<function, Rows>, first: u32, part: u32, values: mat4x4<f32>) {
  for (var r = 0u; r < ROWS; r++) {
    (*rows)[r] += values * weights[min(first + r, TILE - 1u) * 8u + part];
  }
}

fn finish_row(sum: vec4<f32>, row: u32, tile: u32, h: u32, column: u32) {
  let width = params.D / 4u;
  let queries = min(TILE, LANES / width * ROWS);
  let t = tile * queries + row;
  if (row < queries && t < params.T) {
    var total = 0.0;
    for (var i = 0u; i < 8u; i++) {
      total += lane_values[row * 8u + i];
    }
    y[(t * params.H + h) * width + column] = sum / max(total, 1e-38);
  }
}

fn attend_tile(tile: u32, h: u32, lane: u32) {
  let width = params.D / 4u;
  let slots = LANES / width;
  let queries = min(TILE, slots * ROWS);
  let stride = params.G * width;
  let head = h / (params.H / params.G) * width;
  let end = u32(length[0]);
  let before = end - params.T;
  let t_first = tile * queries;
  let t_last = min(t_first + queries, params.T) - 1u;
  let first = visible_keys(before + t_first, end, params.S, params.causal, params.window, params.block).x;
  let last = visible_keys(before + t_last, end, params.S, params.causal, params.window, params.block).y;
  let start = first % params.S;

  let row = lane / 8u;
  let j = lane % 8u;
  let t = min(t_first + row, t_last);
  let seen = visible_keys(before + t, end, params.S, params.causal, params.window, params.block);
  let column = lane % width;
  let slot_row = lane / width * ROWS;
  var largest = -3.4e38;
  var total = 0.0;
  var gathered: Rows;

  for (var base = first; base < last; base += TILE) {
    var scores = vec4(0.0);
    let key_row = ring_row(start, min(base + row, last - 1u) - first, params.S) * stride + head;
    for (var c = 0u; c < width; c += 8u) {
      workgroupBarrier();
      var query_part = vec4(0.0);
      var key_part = vec4(0.0);
      if (c + j < width) {
        query_part = q[(t * params.H + h) * width + c + j] * params.scale;
        key_part = key_at(key_row + c + j);
      }
      query_tile[row * PITCH + j] = query_part;
      key_tile[row * PITCH + j] = key_part;
      workgroupBarrier();
      for (var i = 0u; i < 8u; i++) {
        let part = query_tile[row * PITCH + i];
        scores.x += dot(part, key_tile[j * PITCH + i]);
        scores.y += dot(part, key_tile[(j + 8u) * PITCH + i]);
        scores.z += dot(part, key_tile[(j + 16u) * PITCH + i]);
        scores.w += dot(part, key_tile[(j + 24u) * PITCH + i]);
      }
    }
    let positions = vec4(base + j) + vec4(0u, 8u, 16u, 24u);
    let visible = (positions >= vec4(seen.x)) & (positions < vec4(seen.y));
    scores = select(vec4(-3.4e38), scores, visible);
    lane_values[lane] = max(max(scores.x, scores.y), max(scores.z, scores.w));
    workgroupBarrier();
    var peak = largest;
    for (var i = 0u; i < 8u; i++) {
      peak = max(peak, lane_values[row * 8u + i]);
    }
    let fade = exp(largest - peak);
    largest = peak;
    let weight = select(vec4(0.0), exp(scores - peak), visible);
    total = total * fade + dot(weight, vec4(1.0));
    weights[lane] = weight;
    if (j == 0u) {
      fades[row] = fade;
    }
    workgroupBarrier();
    if (slot_row < queries) {
      fade_rows(&gathered, slot_row);
      for (var i = 0u; i < 8u; i++) {
        let at = base + i - first;
        let most = last - 1u - first;
        let value_0 = value_at(ring_row(start, min(at, most), params.S) * stride + head + column);
        let value_1 = value_at(ring_row(start, min(at + 8u, most), params.S) * stride + head + column);
        let value_2 = value_at(ring_row(start, min(at + 16u, most), params.S) * stride + head + column);
        let value_3 = value_at(ring_row(start, min(at + 24u, most), params.S) * stride + head + column);
        add_values(&gathered, slot_row, i, mat4x4(value_0, value_1, value_2, value_3));
      }
    }
  }

  workgroupBarrier();
  lane_values[lane] = total;
  workgroupBarrier();
  finish_row(gathered[0], slot_row, tile, h, column);
  if (ROWS > 1u) {
    finish_row(gathered[min(1u, ROWS - 1u)], slot_row + 1u, tile, h, column);
  }
  if (ROWS > 2u) {
    finish_row(gathered[min(2u, ROWS - 1u)], slot_row + 2u, tile, h, column);
    finish_row(gathered[min(3u, ROWS - 1u)], slot_row + 3u, tile, h, column);
  }
  if (ROWS > 4u) {
    finish_row(gathered[min(4u, ROWS - 1u)], slot_row + 4u, tile, h, column);
    finish_row(gathered[min(5u, ROWS - 1u)], slot_row + 5u, tile, h, column);
    finish_row(gathered[min(6u, ROWS - 1u)], slot_row + 6u, tile, h, column);
    finish_row(gathered[min(7u, ROWS - 1u)], slot_row + 7u, tile, h, column);
  }
}
