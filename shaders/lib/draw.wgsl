// draw: the id of a row of logits at `row`, by a number in [0, 1). Where only a few ids can be among the top k, they are
// gathered and drawn from side by side (sample_few). Else a cut is the largest value such that what is not below it
// reaches a target, k ids or p of the mass (sample_cut), and for the walk each of the 256 lanes owns neighbouring ids. The
// caller declares WG = 256, BATCH, params (V, temperature, top_k, top_p), logits, and takes the libs sum,
// sample_cut, top_bound and sample_few.

const FEW: u32 = 128u;

var<workgroup> shares: array<f32, WG>;
var<workgroup> drawn: atomic<u32>;
var<workgroup> final_kept: atomic<u32>;

fn logit_at(i: u32) -> f32 {
  return logits[i / 4u][i % 4u];
}

// Draw a row's id by three passes or more over all logits.
fn draw_any(row: u32, random: f32, lane: u32) -> u32 {
  let owned = (params.V + WG - 1u) / WG;
  let first = min(lane * owned, params.V);
  let last = min(first + owned, params.V);
  var largest = -3.4e38;
  for (var n = lane; n < params.V; n += WG) {
    largest = max(largest, logit_at(row + n));
  }
  shares[lane] = largest;
  workgroupBarrier();
  for (var i = 0u; i < WG; i++) {
    largest = max(largest, shares[i]);
  }
  workgroupBarrier();
  var cut = 0u;
  if (params.top_k > 0u && params.top_k < params.V) {
    cut = find_cut(row, f32(params.top_k), false, largest, 0u, lane);
  }
  if (params.top_p < 1.0) {
    var mass = 0.0;
    for (var n = lane; n < params.V; n += WG) {
      mass += weight_of(logit_at(row + n), largest, cut);
    }
    mass = sum_lanes(mass, lane) * params.top_p;
    cut = max(cut, find_cut(row, max(mass, 1e-30), true, largest, cut, lane));
  }
  var own = 0.0;
  var kept = 0u;
  for (var n = first; n < last; n++) {
    let weight = weight_of(logit_at(row + n), largest, cut);
    own += weight;
    kept = select(kept, n, weight > 0.0);
  }
  if (lane == 0u) {
    atomicStore(&drawn, params.V);
    atomicStore(&final_kept, 0u);
  }
  shares[lane] = own;
  workgroupBarrier();
  atomicMax(&final_kept, kept);
  for (var step = 1u; step < WG; step *= 2u) {
    let before = select(0.0, shares[lane - min(step, lane)], lane >= step);
    workgroupBarrier();
    shares[lane] += before;
    workgroupBarrier();
  }
  let draw = random * shares[WG - 1u];
  if (shares[lane] > draw) {
    var running = select(0.0, shares[max(lane, 1u) - 1u], lane > 0u);
    for (var n = first; n < last; n++) {
      running += weight_of(logit_at(row + n), largest, cut);
      if (running > draw) {
        atomicMin(&drawn, n);
        break;
      }
    }
  }
  workgroupBarrier();
  let chosen = min(atomicLoad(&drawn), atomicLoad(&final_kept));
  workgroupBarrier();
  return chosen;
}

fn draw(row: u32, random: f32, lane: u32) -> u32 {
  var chosen = params.V;
  if (params.top_k > 0u && params.top_k <= FEW) {
    chosen = draw_few(row, random, lane);
  }
  if (chosen == params.V) {
    chosen = draw_any(row, random, lane);
  }
  return chosen;
}
