// draw_few: draw a row's id when few ids can be among the top k: they are gathered, sorted by id and weighed side by side.
// Each of the 256 lanes finds the largest logit of its stride; the k-th largest of these 256 bounds the k-th largest of all
// from below, and hardly more than k logits reach it. Returns the id, or V when more than 256 do (or none).
// The caller declares WG = 256, params, logits, drawn and final_kept, and takes the libs max and random.

const BATCH: u32 = 8u; // loads in flight per lane

var<workgroup> few_values: array<f32, WG>;
var<workgroup> few_weights: array<f32, WG>;
var<workgroup> few_ids: array<u32, WG>;
var<workgroup> few_count: atomic<u32>;

// Four logits of a row, far below all where the row starts or ends between them.
fn inside_row(four: vec4<f32>, at: u32, row: u32) -> vec4<f32> {
  let places = vec4(4u * at) + vec4(0u, 1u, 2u, 3u);
  return select(vec4(-3.4e38), four, (places >= vec4(row)) & (places < vec4(row + params.V)));
}

fn gather(value: f32, id: u32, bound: f32) {
  if (value >= bound && value > -3.4e38) {
    let place = atomicAdd(&few_count, 1u);
    if (place < WG) {
      few_values[place] = value;
      few_ids[place] = id;
    }
  }
}

fn draw_few(row: u32, random: f32, lane: u32) -> u32 {
  let last = (row + params.V + 3u) / 4u;
  var own = -3.4e38;
  for (var base = row / 4u + lane; base < last; base += WG * BATCH) {
    var batch: array<vec4<f32>, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      batch[n] = logits[min(base + n * WG, last - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      let four = inside_row(batch[n], base + n * WG, row);
      own = max(own, max(max(four.x, four.y), max(four.z, four.w)));
    }
  }
  few_values[lane] = own;
  if (lane == 0u) {
    atomicStore(&few_count, 0u);
    atomicStore(&drawn, WG);
    atomicStore(&final_kept, 0u);
  }
  workgroupBarrier();
  var above = 0u;
  var largest = own;
  for (var i = 0u; i < WG; i++) {
    above += select(0u, 1u, few_values[i] > own);
    largest = max(largest, few_values[i]);
  }
  let bound = -max_lanes(select(-3.4e38, -own, above < params.top_k), lane);

  for (var base = row / 4u + lane; base < last; base += WG * BATCH) {
    var batch: array<vec4<f32>, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      batch[n] = logits[min(base + n * WG, last - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      let four = inside_row(batch[n], base + n * WG, row);
      let id = 4u * (base + n * WG) - row;
      gather(four.x, id, bound);
      gather(four.y, id + 1u, bound);
      gather(four.z, id + 2u, bound);
      gather(four.w, id + 3u, bound);
    }
  }
  workgroupBarrier();
  let count = atomicLoad(&few_count);
  workgroupBarrier();
  if (count > WG || count == 0u) {
    return params.V; // uniform: all lanes read the same count
  }

  // Sort by id, and drop what is not among the top k.
  let value = few_values[lane];
  let id = few_ids[lane];
  var larger = 0u;
  var place = 0u;
  for (var i = 0u; i < count; i++) {
    larger += select(0u, 1u, few_values[i] > value);
    place += select(0u, 1u, few_ids[i] < id);
  }
  workgroupBarrier();
  if (lane < count) {
    few_values[place] = value;
    few_ids[place] = id;
    few_weights[place] = select(0.0, exp((value - largest) / params.temperature), larger < params.top_k);
  }
  workgroupBarrier();

  let sorted_value = few_values[lane];
  var weight = select(0.0, few_weights[lane], lane < count);
  var mass = 0.0;
  var mass_above = 0.0;
  for (var i = 0u; i < count; i++) {
    mass += few_weights[i];
    mass_above += select(0.0, few_weights[i], few_values[i] > sorted_value);
  }
  if (params.top_p < 1.0 && mass_above > 0.0 && mass_above >= params.top_p * mass) {
    weight = 0.0;
  }
  workgroupBarrier();
  few_weights[lane] = weight;
  workgroupBarrier();

  var running = 0.0;
  mass = 0.0;
  for (var i = 0u; i < count; i++) {
    mass += few_weights[i];
    running = select(running, mass, i <= lane);
  }
  if (lane < count && running > random * mass) {
    atomicMin(&drawn, lane);
  }
  if (weight > 0.0) {
    atomicMax(&final_kept, lane);
  }
  workgroupBarrier();
  let chosen = few_ids[min(atomicLoad(&drawn), atomicLoad(&final_kept))];
  workgroupBarrier();
  return chosen;
}
