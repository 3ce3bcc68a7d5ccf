// attend_tile: the queries of a tile of one head against their visible keys, by 128 lanes, 32 keys at a time.
// Scores: a lane takes the queries line, line + 16, .. and the keys column, column + 8, .. (16 lines of 8 columns); queries
// and keys pass through workgroup memory 32 elements of D at a time, the next ones under way while these are used. Values:
// a lane owns four elements of D of ROWS neighbouring queries. The caller declares what attention_tile needs, q, length,
// key_at and value_at, and takes the libs attention_tile and visible.

fn attend_tile(tile: u32, h: u32, lane: u32) {
  let width = params.D / 4u;
  let queries = min(QUERIES, LANES / width * ROWS);
  let stride = params.G * width;
  let head = h / (params.H / params.G) * width;
  let end = u32(length[0]);
  let before = end - params.T;
  let t_first = tile * queries;
  let t_last = min(t_first + queries, params.T) - 1u;
  let first = visible_keys(before + t_first, end, params.S, params.causal, params.window, params.block).x;
  let last = visible_keys(before + t_last, end, params.S, params.causal, params.window, params.block).y;
  let start = first % params.S;
  let line = lane / 8u;
  let column = lane % 8u;
  let own = lane % width;
  let own_row = lane / width * ROWS;
  var largest: Stats;
  var total: Stats;
  for (var r = 0u; r < SCORED; r++) {
    largest[r] = -3.4e38;
  }
  var gathered: Rows;

  for (var base = first; base < last; base += KEYS) {
    var scores = Scores();
    let row_0 = ring_row(start, min(base + line, last - 1u) - first, params.S) * stride + head;
    let row_1 = ring_row(start, min(base + line + 16u, last - 1u) - first, params.S) * stride + head;
    var next_query: Scores;
    var next_key_0: vec4<f32>;
    var next_key_1: vec4<f32>;
    for (var c = 0u; c < width + 8u; c += 8u) {
      if (c > 0u) {
        workgroupBarrier();
        for (var r = 0u; r < SCORED; r++) {
          query_tile[(line + 16u * r) * PITCH + column] = next_query[r];
        }
        key_tile[line * PITCH + column] = next_key_0;
        key_tile[(line + 16u) * PITCH + column] = next_key_1;
        workgroupBarrier();
      }
      if (c < width) {
        let at = min(c + column, width - 1u); // of what lies beyond D nothing is used
        for (var r = 0u; r < SCORED; r++) {
          next_query[r] = q[(min(t_first + line + 16u * r, t_last) * params.H + h) * width + at];
        }
        next_key_0 = key_at(row_0 + at);
        next_key_1 = key_at(row_1 + at);
      }
      if (c > 0u) {
        for (var i = 0u; i < min(8u, width + 8u - c); i++) {
          add_scores(&scores, line, column, i);
        }
      }
    }
    let positions = vec4(base + column) + vec4(0u, 8u, 16u, 24u);
    for (var r = 0u; r < SCORED; r++) {
      let t = min(t_first + line + 16u * r, t_last);
      let seen = visible_keys(before + t, end, params.S, params.causal, params.window, params.block);
      let visible = (positions >= vec4(seen.x)) & (positions < vec4(seen.y));
      scores[r] = select(vec4(-3.4e38), scores[r] * params.scale, visible);
      let most = max(scores[r].xy, scores[r].zw);
      peaks[(line + 16u * r) * 8u + column] = max(most.x, most.y);
    }
    workgroupBarrier();
    for (var r = 0u; r < SCORED; r++) {
      let row = line + 16u * r;
      var peak = largest[r];
      for (var i = 0u; i < 8u; i++) {
        peak = max(peak, peaks[row * 8u + i]);
      }
      let fade = exp(largest[r] - peak);
      largest[r] = peak;
      let weight = select(vec4(0.0), exp(scores[r] - peak), scores[r] > vec4(-3.3e38));
      total[r] = total[r] * fade + dot(weight, vec4(1.0));
      query_tile[row * PITCH + column] = weight;
      if (column == 0u) {
        fades[row] = fade;
      }
    }
    workgroupBarrier();
    if (own_row < queries) {
      fade_rows(&gathered, own_row);
      for (var i = 0u; i < 8u; i++) {
        let key = base + i - first;
        let most = last - 1u - first;
        let value_0 = value_at(ring_row(start, min(key, most), params.S) * stride + head + own);
        let value_1 = value_at(ring_row(start, min(key + 8u, most), params.S) * stride + head + own);
        let value_2 = value_at(ring_row(start, min(key + 16u, most), params.S) * stride + head + own);
        let value_3 = value_at(ring_row(start, min(key + 24u, most), params.S) * stride + head + own);
        add_values(&gathered, own_row, i, mat4x4(value_0, value_1, value_2, value_3));
      }
    }
  }

  for (var r = 0u; r < SCORED; r++) {
    peaks[(line + 16u * r) * 8u + column] = total[r];
  }
  workgroupBarrier();
  for (var row = lane; row < QUERIES; row += LANES) {
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) {
      sum += peaks[row * 8u + i];
    }
    fades[row] = 1.0 / max(sum, 1e-38);
  }
  workgroupBarrier();
  finish_rows(&gathered, own_row, queries, t_first, h * width + own);
}
