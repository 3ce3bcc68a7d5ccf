// make_query: a lane's eight elements of what attend_step needs from its row: REPEAT query heads and the newest key,
// normalised and rotated but not yet divided by their root mean squares, the sums of the squares for these, and the newest
// value. The caller is lib/attention_step.

struct Eight { low: vec4<f32>, high: vec4<f32> }

var<private> query: array<Eight, REPEAT>;
var<private> squares: array<f32, REPEAT>;
var<private> new_key: Eight;
var<private> key_squares: f32;
var<private> new_value: Eight;

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
fn scaled_key(start: u32, c: u32) -> vec4<f32> {
  return qkv[start + c] * k_norm[c];
}

fn scaled_query(start: u32, c: u32) -> vec4<f32> {
  return qkv[start + c] * q_norm[c];
}

fn squares_at(place: u32) -> f32 {
  return dot(qkv[place], qkv[place]) + dot(qkv[place + 1u], qkv[place + 1u]);
}

// Lanes beyond the head hold zeros.
fn make_query(head: u32, key_head: u32, member: u32) {
  let width = params.D / 4u;
  let within = select(0.0, 1.0, 2u * member < width);
  let c = 2u * min(member, width / 2u - 1u);
  let half = width / 2u; // in the table: cosines, then sines
  let key_start = (params.H + key_head) * width;
  let value_place = key_start + params.G * width + c;
  new_value = Eight(qkv[value_place], qkv[value_place + 1u]);
  var cosine: array<vec4<f32>, 2>;
  var sine: array<vec4<f32>, 2>;
  var partner: array<u32, 2>;
  for (var j = 0u; j < 2u; j++) {
    let first_half = c + j < half;
    partner[j] = select(c + j - half, c + j + half, first_half);
    cosine[j] = within * table[(c + j) % half];
    sine[j] = within * select(1.0, -1.0, first_half) * table[half + (c + j) % half];
  }
  for (var r = 0u; r < REPEAT; r++) {
    let start = (head + r) * width;
    squares[r] = within * squares_at(start + c);
    query[r] = Eight(
      scaled_query(start, c) * cosine[0] + scaled_query(start, partner[0]) * sine[0],
      scaled_query(start, c + 1u) * cosine[1] + scaled_query(start, partner[1]) * sine[1],
    );
  }
  key_squares = within * squares_at(key_start + c);
  new_key = Eight(
    scaled_key(key_start, c) * cosine[0] + scaled_key(key_start, partner[0]) * sine[0],
    scaled_key(key_start, c + 1u) * cosine[1] + scaled_key(key_start, partner[1]) * sine[1],
  );
}
