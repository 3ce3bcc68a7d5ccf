// merge_slots: weighs what the slots of attend_step gathered against each other, adds it up and stores it. Two slots that are
// linked add up theirs beforehand: one keeps the low halves of all, the other the high ones.
// The caller is lib/attention_step; it takes the libs linked_sum (for LINKED) and slot_lanes.

const TOGETHER: u32 = max(min(LINKED / WIDE, 2u), 1u); // slots that are linked
const GROUPS: u32 = SLOTS / TOGETHER;
const PITCH: u32 = LANES + 4u; // more than LANES, so that halves lie in different banks
const SIDE_PITCH: u32 = LANES / 2u + 4u;
const FOUND: u32 = max(REPEAT, (COUNT + 3u) / 4u) * PITCH;

var<workgroup> found: array<vec4<f32>, FOUND>;
var<workgroup> slot_stats: array<vec2<f32>, REPEAT * SLOTS>; // largest score, sum of weights
var<workgroup> totals: array<f32, REPEAT>;

fn merge_slots(head: u32, part: u32, lane: u32, own_peak: f32, own_total: f32) {
  let slot = lane / WIDE;
  let member = lane % WIDE;
  let own_head = member % REPEAT;
  let own_key = member % COUNT / REPEAT;
  let slot_total = add_across(own_total, REPEAT, COUNT, lane);
  if (member < REPEAT) {
    slot_stats[own_head * SLOTS + slot] = vec2(own_peak, slot_total);
  }
  workgroupBarrier();
  var peak = -3.4e38;
  for (var s = own_key; s < SLOTS; s += KEYS) {
    peak = max(peak, slot_stats[own_head * SLOTS + s].x);
  }
  peak = max_over_keys(peak, lane);
  var total = 0.0;
  for (var s = own_key; s < SLOTS; s += KEYS) {
    let stats = slot_stats[own_head * SLOTS + s];
    total += exp(stats.x - peak) * stats.y;
  }
  total = add_across(total, REPEAT, COUNT, lane);
  if (lane < REPEAT) {
    totals[own_head] = total;
    store_stats(head + own_head, part, select(0.0, peak, total > 0.0), total);
  }
  let share = exp(own_peak - peak);
  tell(FADE, share, lane);
  listen();
  fade_gathered(share, lane);
  if (TOGETHER == 2u) {
    add_pairs(head, part, lane);
  } else {
    add_halves(head, part, lane);
  }
}

// Multiplies what was gathered for each head by what the lane of that head told.
fn fade_gathered(told: f32, lane: u32) {
  for (var k = 0u; k < REPEAT; k++) {
    let factor = hear(FADE, told, k, lane);
    gathered[k].low *= factor;
    gathered[k].high *= factor;
  }
}

fn add_pairs(head: u32, part: u32, lane: u32) {
  let own_head = lane % REPEAT;
  let odd = lane / WIDE % 2u == 1u;
  for (var k = 0u; k < REPEAT; k++) {
    let kept = select(gathered[k].low, gathered[k].high, odd);
    let passed = select(gathered[k].high, gathered[k].low, odd);
    let place = (own_head ^ k) * PITCH + select(0u, SIDE_PITCH, odd) + lane / WIDE / 2u * WIDE + lane % WIDE;
    found[place] = kept + subgroupShuffleXor(passed, WIDE);
  }
  workgroupBarrier();
  for (var i = lane; i < REPEAT * 2u * WIDE; i += LANES) {
    add_groups(head, part, i / (2u * WIDE), i % (2u * WIDE), i % 2u * SIDE_PITCH);
  }
}

// The same of slots by themselves: low halves, then high ones.
fn add_halves(head: u32, part: u32, lane: u32) {
  for (var side = 0u; side < 2u; side++) {
    workgroupBarrier();
    for (var k = 0u; k < REPEAT; k++) {
      found[(lane % REPEAT ^ k) * PITCH + lane] = select(gathered[k].low, gathered[k].high, side == 1u);
    }
    workgroupBarrier();
    for (var i = lane; i < REPEAT * WIDE; i += LANES) {
      add_groups(head, part, i / WIDE, 2u * (i % WIDE) + side, 0u);
    }
  }
}

// Stores the four elements from 4 c on of a head r: the sum of the parts that lie from `start` on.
fn add_groups(head: u32, part: u32, r: u32, c: u32, start: u32) {
  var sum = vec4<f32>();
  for (var s = 0u; s < GROUPS; s++) {
    sum += found[r * PITCH + start + s * WIDE + c / 2u];
  }
  if (c < params.D / 4u) {
    store_sum(head + r, part, c, sum, totals[r]);
  }
}
