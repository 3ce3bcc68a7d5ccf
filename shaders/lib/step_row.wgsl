// make_rows, row_part, value_part: what attend_step needs from its row: REPEAT query heads, normalised, rotated and scaled, the
// newest key, normalised and rotated, and the newest value. Each of the first slots makes a head for all.
// The caller is lib/attention_step; it takes the lib slot_lanes.

struct Eight { low: vec4<f32>, high: vec4<f32> }

var<workgroup> rows: array<vec4<f32>, (REPEAT + 1u) * 2u * WIDE>; // the queries, then the key: low halves of all parts, then high

fn eight(words: vec4<u32>) -> Eight {
  return Eight(
    vec4(unpack2x16float(words.x), unpack2x16float(words.y)), vec4(unpack2x16float(words.z), unpack2x16float(words.w))
  );
}

fn packed(value: Eight) -> vec4<u32> {
  return vec4(
    pack2x16float(value.low.xy), pack2x16float(value.low.zw), pack2x16float(value.high.xy), pack2x16float(value.high.zw)
  );
}

fn product(a: Eight, b: Eight) -> f32 {
  return dot(a.low, b.low) + dot(a.high, b.high);
}

// Elements 4 c .. of a head that begins at vector `start`, times its norm's.
fn scaled(start: u32, c: u32, is_key: bool) -> vec4<f32> {
  return qkv[start + c] * select(q_norm[c], k_norm[c], is_key);
}

fn rotated(start: u32, c: u32, is_key: bool) -> vec4<f32> {
  let half = params.D / 8u; // in the table: cosines, then sines
  let cosine = table[c % half];
  let sine = table[half + c % half];
  if (c < half) {
    return scaled(start, c, is_key) * cosine - scaled(start, c + half, is_key) * sine;
  }
  return scaled(start, c, is_key) * cosine + scaled(start, c - half, is_key) * sine;
}

// The caller waits before it takes parts. Those beyond the head are zeros.
fn make_rows(head: u32, key_head: u32, lane: u32) {
  let r = lane / WIDE;
  let member = lane % WIDE;
  let is_key = r == REPEAT;
  let width = params.D / 4u;
  let c = 2u * min(member, width / 2u - 1u);
  let within = select(0.0, 1.0, 2u * member < width);
  var part = Eight();
  var squares = 0.0;
  if (r <= REPEAT) {
    let start = select(head + r, params.H + key_head, is_key) * width;
    squares = within * (dot(qkv[start + c], qkv[start + c]) + dot(qkv[start + c + 1u], qkv[start + c + 1u]));
    part = Eight(rotated(start, c, is_key), rotated(start, c + 1u, is_key));
  }
  let square = add_across(squares, 1u, WIDE, lane);
  if (r <= REPEAT) {
    let factor = within * select(params.scale, 1.0, is_key) * inverseSqrt(square / f32(params.D) + params.epsilon);
    rows[2u * r * WIDE + member] = factor * part.low;
    rows[(2u * r + 1u) * WIDE + member] = factor * part.high;
  }
}

fn row_part(r: u32, member: u32) -> Eight {
  return Eight(rows[2u * r * WIDE + member], rows[(2u * r + 1u) * WIDE + member]);
}

fn value_part(key_head: u32, member: u32) -> Eight {
  let place = (params.H + params.G + key_head) * params.D / 4u + 2u * min(member, params.D / 8u - 1u);
  return Eight(qkv[place], qkv[place + 1u]);
}
