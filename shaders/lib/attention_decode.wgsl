// attend: one query of one head against its visible keys, by a workgroup of WG lanes. Keys go by in chunks: a lane scores
// whole keys, then adds up four elements of D over every SLOTS-th value; the slots are summed at the end.
// The caller declares WG, params, q, length, y, key_at and value_at, and takes the libs max, sum and visible.

const CHUNK: u32 = 1024u;
const WIDEST: u32 = 64u;

var<workgroup> query: array<vec4<f32>, WIDEST>;
var<workgroup> scores: array<f32, CHUNK>;
var<workgroup> slot_sums: array<vec4<f32>, WG>;

fn attend(t: u32, h: u32, lane: u32) {
  let width = params.D / 4u;
  let slots = WG / width;
  let slot = lane / width;
  let part = lane % width;
  let stride = params.G * width;
  let head = h / (params.H / params.G) * width;
  let end = u32(length[0]);
  let place = (t * params.H + h) * width;
  if (lane < width) {
    query[lane] = q[place + lane] * params.scale;
  }
  workgroupBarrier();
  let keys = visible_keys(end - params.T + t, end, params.S, params.causal, params.window, params.block);
  var largest = -3.4e38;
  var total = 0.0;
  var gathered = vec4(0.0);
  for (var base = keys.x; base < keys.y; base += CHUNK) {
    let count = min(CHUNK, keys.y - base);
    let first = base % params.S;
    var peak = largest;
    for (var i = lane; i < count; i += WG) {
      let row = ring_row(first, i, params.S) * stride + head;
      var products = vec4(0.0);
      for (var d = 0u; d < width; d++) {
        products += query[d] * key_at(row + d);
      }
      let score = products.x + products.y + products.z + products.w;
      scores[i] = score;
      peak = max(peak, score);
    }
    peak = max_lanes(peak, lane);
    let fade = exp(largest - peak);
    largest = peak;
    total *= fade;
    gathered *= fade;
    for (var i = lane; i < count; i += WG) {
      let weight = exp(scores[i] - peak);
      scores[i] = weight;
      total += weight;
    }
    workgroupBarrier();
    if (slot < slots) {
      for (var i = slot; i < count; i += slots) {
        gathered += scores[i] * value_at(ring_row(first, i, params.S) * stride + head + part);
      }
    }
    workgroupBarrier();
  }
  total = sum_lanes(total, lane);
  slot_sums[lane] = gathered;
  workgroupBarrier();
  if (lane < width) {
    for (var other = 1u; other < slots; other++) {
      gathered += slot_sums[other * width + lane];
    }
    y[place + lane] = gathered / max(total, 1e-38);
  }
  workgroupBarrier();
}
