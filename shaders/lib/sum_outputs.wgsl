// sum_outputs: each lane holds one share of OUTPUTS sums; returns the whole sum of output `lane` to lanes below OUTPUTS.
// The caller defines WG and OUTPUTS, at most WG. Two barriers, however many outputs.

const LANES_PER_OUTPUT: u32 = WG / OUTPUTS;

var<workgroup> output_shares: array<f32, WG * OUTPUTS>;
var<workgroup> output_parts: array<f32, WG>;

fn sum_outputs(sums: ptr<function, array<f32, OUTPUTS>>, lane: u32) -> f32 {
  for (var o = 0u; o < OUTPUTS; o++) {
    output_shares[o * WG + lane] = (*sums)[o];
  }
  workgroupBarrier();
  let output = min(lane / LANES_PER_OUTPUT, OUTPUTS - 1u); // the last lanes have no output where OUTPUTS divides WG not
  var part = 0.0;
  for (var i = lane % LANES_PER_OUTPUT; i < WG; i += LANES_PER_OUTPUT) {
    part += output_shares[output * WG + i];
  }
  output_parts[lane] = part;
  workgroupBarrier();
  var total = 0.0;
  if (lane < OUTPUTS) {
    for (var i = 0u; i < LANES_PER_OUTPUT; i++) {
      total += output_parts[lane * LANES_PER_OUTPUT + i];
    }
  }
  return total;
}
