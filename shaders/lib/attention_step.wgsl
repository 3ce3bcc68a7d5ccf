// seen_keys, fill_query: the query of attend_run is one row of a fused projection, whose heads are normalised and
// rotated on the way; the workgroups whose runs end with the newest position write its key and value first, each for
// itself: all write the same, and read it behind a barrier. The caller binds qkv, q_norm, k_norm, table (arrays of vec4),
// cache_k, cache_v (f16, four to a vec2<u32>), length; params has S, G, D (a multiple of 8), H, epsilon, scale, window.

fn seen_keys(t: u32) -> vec2<u32> {
  let end = u32(length[0]);
  return visible_keys(end - 1u, end, params.S, 1u, params.window, 0u);
}

// Four elements of a head, rotated; `factor` is one over its root mean square.
fn rotated(own: vec4<f32>, other: vec4<f32>, c: u32, factor: f32) -> vec4<f32> {
  let half = params.D / 8u;
  let cosine = table[c % half];
  let sine = table[half + c % half];
  return factor * (own * cosine + other * sine * select(1.0, -1.0, c < half));
}

fn packed(value: vec4<f32>) -> vec2<u32> {
  return vec2(pack2x16float(value.xy), pack2x16float(value.zw));
}

fn fill_query(t: u32, g: u32, newest: bool, lane: u32) {
  let repeat = min(REPEAT, params.H / params.G);
  let key_head = g * repeat / (params.H / params.G);
  let width = params.D / 4u;
  let c = lane % width;
  let partner = (c + width / 2u) % width;
  let source = (g * repeat + min(lane / width, repeat - 1u)) * width;
  let own = qkv[source + c];
  let other = qkv[source + partner];
  let key_source = (params.H + key_head) * width;
  let key = qkv[key_source + c];
  let other_key = qkv[key_source + partner];
  let value = qkv[key_source + params.G * width + c];
  // Eight lanes add up the squares of each head, those behind them of the key.
  if (lane < TEAM * (REPEAT + 1u)) {
    let head = select(key_source, (g * repeat + min(lane / TEAM, repeat - 1u)) * width, lane / TEAM < REPEAT);
    var part = 0.0;
    for (var s = 0u; s < STEPS; s++) {
      let column = lane % TEAM + s * TEAM;
      let four = qkv[head + min(column, width - 1u)] * select(0.0, 1.0, column < width);
      part += dot(four, four);
    }
    found[lane] = part;
  }
  workgroupBarrier();
  let head = min(lane / width, REPEAT - 1u);
  var squares = 0.0;
  var key_squares = 0.0;
  for (var i = 0u; i < TEAM; i++) {
    squares += found[TEAM * head + i];
    key_squares += found[TEAM * REPEAT + i];
  }
  let factor = inverseSqrt(squares / f32(params.D) + params.epsilon);
  let key_factor = inverseSqrt(key_squares / f32(params.D) + params.epsilon);
  if (lane < repeat * width) {
    query[lane] = params.scale * rotated(own * q_norm[c], other * q_norm[partner], c, factor);
  }
  if (newest && lane < width) {
    let place = ((u32(length[0]) - 1u) % params.S * params.G + key_head) * width + c;
    cache_k[place] = packed(rotated(key * k_norm[c], other_key * k_norm[partner], c, key_factor));
    cache_v[place] = packed(value);
  }
  storageBarrier();
}
