// find_cut: the rank of a row's value such that it and those above reach a goal; few bits a pass, from the highest down.
// The caller declares WG = 256, params and logit_at.

const DIGITS: u32 = 8u;

var<workgroup> bins: array<f32, DIGITS * WG>;

// Bits that order as the floats do, with -0 equal to 0.
fn rank_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn value_of(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
}

fn weight_of(value: f32, largest: f32, cut: u32) -> f32 {
  return select(0.0, exp((value - largest) / params.temperature), rank_bits(value) >= cut);
}

// The largest rank whose ids and those above hold `goal` of what is measured: ids, or the weights of those above `cut`.
fn find_cut(row: u32, goal: f32, by_weight: bool, largest: f32, cut: u32, lane: u32) -> u32 {
  var prefix = 0u;
  var above = 0.0;
  var remaining = 32u;
  while (remaining > 0u) {
    let taken = min(3u, remaining);
    remaining -= taken;
    for (var digit = 0u; digit < DIGITS; digit++) {
      bins[digit * WG + lane] = 0.0;
    }
    for (var n = lane; n < params.V; n += WG) {
      let value = logit_at(row + n);
      let rank = rank_bits(value);
      let digit = (rank - prefix) >> remaining;
      if (rank >= prefix && digit < (1u << taken)) {
        bins[digit * WG + lane] += select(1.0, weight_of(value, largest, cut), by_weight);
      }
    }
    workgroupBarrier();
    // 32 lanes per digit: each adds 8 neighbours' counts, then the first of them the 32 sums.
    let place = lane / 32u * WG + lane % 32u;
    var part = 0.0;
    for (var i = 0u; i < WG; i += 32u) {
      part += bins[place + i];
    }
    workgroupBarrier();
    bins[place] = part;
    workgroupBarrier();
    if (lane % 32u == 0u) {
      for (var i = 1u; i < 32u; i++) {
        part += bins[place + i];
      }
      bins[place] = part;
    }
    workgroupBarrier();
    var digit = (1u << taken) - 1u;
    while (digit > 0u && above + bins[digit * WG] < goal) {
      above += bins[digit * WG];
      digit--;
    }
    prefix += digit << remaining;
    let reached = above + bins[digit * WG];
    workgroupBarrier();
    if (reached == goal) {
      break;
    }
  }
  return prefix;
}
