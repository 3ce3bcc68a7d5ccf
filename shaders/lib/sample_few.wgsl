// draw_few: draw a row's id when few ids can be among the top k: they are gathered, sorted by id and weighed side by side.
// Returns the id, or V when more than 256 can (or none). The caller declares WG = 256, BATCH, params, logits, shares, drawn
// and final_kept, and takes the libs top_bound and sample_cut.

const AT_ONCE: u32 = 8u; // candidates that a lane reads together: behind the last, lists hold what does not count

var<workgroup> few_count: atomic<u32>;
var<workgroup> few_values: array<f32, WG>;
var<workgroup> few_ids: array<u32, WG>;
var<workgroup> sorted_values: array<f32, WG>;
var<workgroup> sorted_ids: array<u32, WG>;
var<workgroup> sorted_weights: array<f32, WG>;

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
  few_values[lane] = -3.4e38;
  few_ids[lane] = 0xffffffffu;
  sorted_values[lane] = -3.4e38;
  sorted_weights[lane] = 0.0;
  if (lane == 0u) {
    atomicStore(&few_count, 0u);
  }
  let bound = top_bound(row, lane);
  let last = (row + params.V + 3u) / 4u;
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
  if (count > WG || count == 0u) {
    return params.V; // uniform: all lanes read the same count
  }

  // Sort by id, and drop what is not among the top k.
  if (lane < count) {
    let value = few_values[lane];
    let id = few_ids[lane];
    var largest = value;
    var larger = 0u;
    var place = 0u;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        larger += select(0u, 1u, few_values[i] > value);
        place += select(0u, 1u, few_ids[i] < id);
        largest = max(largest, few_values[i]);
      }
    }
    sorted_values[place] = value;
    sorted_ids[place] = id;
    sorted_weights[place] = select(0.0, exp((value - largest) / params.temperature), larger < params.top_k);
  }
  if (lane == 0u) {
    atomicStore(&drawn, WG);
    atomicStore(&final_kept, 0u);
  }
  workgroupBarrier();

  var weight = sorted_weights[lane];
  if (params.top_p < 1.0) {
    let value = sorted_values[lane];
    var mass = 0.0;
    var mass_above = 0.0;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        mass += sorted_weights[i];
        mass_above += select(0.0, sorted_weights[i], sorted_values[i] > value);
      }
    }
    if (mass_above > 0.0 && mass_above >= params.top_p * mass) {
      weight = 0.0;
    }
  }
  few_values[lane] = weight;
  workgroupBarrier();
  if (lane < count) {
    var running = 0.0;
    var mass = 0.0;
    for (var base = 0u; base < count; base += AT_ONCE) {
      for (var i = base; i < base + AT_ONCE; i++) {
        mass += few_values[i];
        running = select(running, mass, i <= lane);
      }
    }
    if (running > random * mass) {
      atomicMin(&drawn, lane);
    }
    if (weight > 0.0) {
      atomicMax(&final_kept, lane);
    }
  }
  workgroupBarrier();
  return sorted_ids[min(atomicLoad(&drawn), atomicLoad(&final_kept))];
}
