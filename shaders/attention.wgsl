// y[t, h] = sum_p softmax_p(scale * q[t, h] . k[p mod S, g]) * v[p mod S, g], g = h / (H / G), p over the visible positions
// bindings: q [T, H, D] f32; k [S, G, D] f32; v [S, G, D] f32; length [1] i32; y [T, H, D] f32
// work: workgroup (h, t), in strides of the grid over t; keys go by in chunks: a lane scores whole keys, then adds up
//   one element of D over every SLOTS-th value. Any D up to 256
// lib: max, sum, visible

struct Params {
  T: u32, H: u32, D: u32, S: u32, G: u32,
  scale: f32, causal: u32, window: u32, block: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> length: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 256u;
const CHUNK: u32 = 1024u;

var<workgroup> query: array<f32, WG>;
var<workgroup> scores: array<f32, CHUNK>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let width = params.D;
  let slots = WG / width;
  let slot = lane / width;
  let stride = params.G * width;
  let head = group.x / (params.H / params.G) * width;
  let end = u32(length[0]);
  for (var t = group.y; t < params.T; t += groups.y) {
    let place = (t * params.H + group.x) * width;
    if (lane < width) {
      query[lane] = q[place + lane] * params.scale;
    }
    workgroupBarrier();
    let keys = visible_keys(end - params.T + t, end, params.S, params.causal, params.window, params.block);
    var largest = -3.4e38;
    var total = 0.0;
    var gathered = 0.0;
    for (var base = keys.x; base < keys.y; base += CHUNK) {
      let count = min(CHUNK, keys.y - base);
      let first = base % params.S;
      var peak = largest;
      for (var i = lane; i < count; i += WG) {
        let row = ring_row(first, i, params.S) * stride + head;
        var score = 0.0;
        for (var d = 0u; d < width; d++) {
          score += query[d] * k[row + d];
        }
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
          gathered += scores[i] * v[ring_row(first, i, params.S) * stride + head + lane % width];
        }
      }
      workgroupBarrier();
    }
    total = sum_lanes(total, lane);
    scores[lane] = gathered;
    workgroupBarrier();
    if (lane < width) {
      for (var other = 1u; other < slots; other++) {
        gathered += scores[other * width + lane];
      }
      y[place + lane] = gathered / max(total, 1e-38);
    }
    workgroupBarrier();
  }
}
