// tell, listen, hear, add_across, max_over_keys, sum_products: what the lanes of a slot of attend_step learn from each other, by
// shuffles where so many are linked, else through workgroup memory, for which the workgroup waits. The own number of a lane
// is its place in the slot modulo COUNT: own_key * REPEAT + own_head. What it calls number p belongs to own number ^ p.
// The caller is lib/attention_step; it takes the libs linked_sum (for LINKED) and slot_merge (for found).

const APART: u32 = 1u - min(LINKED / WIDE, 1u); // 1 where the lanes of a slot are not linked
const SAID: u32 = LANES * APART + 1u - APART;
const QUADS: u32 = (COUNT + 3u) / 4u;

const FADE: u32 = 0u; // kinds of what is told
const WEIGHT: u32 = 1u;
const PASSED: u32 = 2u;

var<workgroup> said: array<f32, 3u * SAID>;
var<private> products: array<f32, COUNT>; // number p: a part of the sum that own number ^ p is to know

fn tell(kind: u32, value: f32, lane: u32) {
  if (APART == 1u) {
    said[kind * LANES + lane] = value;
  }
}

// Stands between telling and hearing, and before the same kind is told again.
fn listen() {
  if (APART == 1u) {
    workgroupBarrier();
  }
}

// What number p told, where this lane told `value`.
fn hear(kind: u32, value: f32, p: u32, lane: u32) -> f32 {
  if (APART == 1u) {
    return said[kind * LANES + (lane ^ p)];
  }
  return subgroupShuffleXor(value, p);
}

fn across(value: f32, p: u32, lane: u32) -> f32 {
  tell(PASSED, value, lane);
  listen();
  let heard = hear(PASSED, value, p, lane);
  listen();
  return heard;
}

// The sum over lanes whose places differ in the bits from `least` up to, not including, `most`.
fn add_across(value: f32, least: u32, most: u32, lane: u32) -> f32 {
  var sum = value;
  for (var bit = 0u; bit < 4u; bit++) {
    if (least <= 1u << bit && 1u << bit < most) {
      sum += across(sum, 1u << bit, lane);
    }
  }
  return sum;
}

fn max_over_keys(value: f32, lane: u32) -> f32 {
  var largest = value;
  for (var bit = 0u; bit < 4u; bit++) {
    if (REPEAT <= 1u << bit && 1u << bit < COUNT) {
      largest = max(largest, across(largest, 1u << bit, lane));
    }
  }
  return largest;
}

// The sum of what the lanes of the slot have for this lane's number.
fn sum_products(lane: u32) -> f32 {
  var sum: f32;
  if (APART == 1u) {
    sum = sum_apart(lane);
  } else {
    sum = sum_linked(lane);
  }
  return sum;
}

// With each exchange lanes hand on what others want, half of what is left. Loops over constants, as an array whose places
// are found at run time leaves the registers.
fn sum_linked(lane: u32) -> f32 {
  if (COUNT > 8u) {
    for (var p = 0u; p < 8u; p++) {
      products[p] += subgroupShuffleXor(products[p + 8u], 8u);
    }
  }
  if (COUNT > 4u) {
    for (var p = 0u; p < 4u; p++) {
      products[p] += subgroupShuffleXor(products[p + 4u], 4u);
    }
  }
  if (COUNT > 2u) {
    for (var p = 0u; p < 2u; p++) {
      products[p] += subgroupShuffleXor(products[p + 2u], 2u);
    }
  }
  if (COUNT > 1u) {
    for (var p = 0u; p < 1u; p++) {
      products[p] += subgroupShuffleXor(products[p + 1u], 1u);
    }
  }
  let sum = add_across(products[0], COUNT, WIDE, lane);
  return sum;
}

fn sum_apart(lane: u32) -> f32 {
  for (var j = 0u; j < QUADS; j++) {
    found[j * PITCH + lane] = vec4(
      products[4u * j], products[min(4u * j + 1u, COUNT - 1u)],
      products[min(4u * j + 2u, COUNT - 1u)], products[min(4u * j + 3u, COUNT - 1u)],
    );
  }
  workgroupBarrier();
  var sum = 0.0;
  for (var member = 0u; member < WIDE; member++) {
    let p = (lane ^ member) % COUNT;
    sum += found[p / 4u * PITCH + lane / WIDE * WIDE + member][p % 4u];
  }
  workgroupBarrier();
  return sum;
}
