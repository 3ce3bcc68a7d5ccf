// cosine_sine: (cos, sin) of an angle in radians, |angle| < 2^24, within 2e-7. The built-in functions lose all digits there.
// The angle is multiplied by 2 / pi in 64-bit fixed point, in integers, so that no compiler may reassociate the
// reduction away; what is left of a quarter turn goes into Taylor polynomials.

const TWO_OVER_PI_HIGH: u32 = 0xa2f9836eu; // 2 / pi in units of 2^-32
const TWO_OVER_PI_LOW: u32 = 0x4e441529u; // and what is left of it in units of 2^-64

// (high, low) word of a product of a 24-bit and a 32-bit number.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let cross = (a & 0xffffu) * (b >> 16u);
  let middle = (low >> 16u) + (cross & 0xffffu) + (a >> 16u) * (b & 0xffffu);
  let high = (a >> 16u) * (b >> 16u) + (cross >> 16u) + (middle >> 16u);
  return vec2(high, (middle << 16u) | (low & 0xffffu));
}

// The angle modulo a whole turn in units of 2^-30 quarter turns, for 2^-1 <= |angle| < 2^24.
fn quarter_turns(bits: u32) -> u32 {
  let exponent = (bits >> 23u) & 0xffu;
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  let shift = min(150u - min(exponent, 150u), 24u); // angle = mantissa * 2^-shift
  let product = multiply_wide(mantissa, TWO_OVER_PI_HIGH);
  let fraction = product.y + multiply_wide(mantissa, TWO_OVER_PI_LOW).x;
  let whole = product.x + select(0u, 1u, fraction < product.y);
  return (whole << (30u - shift)) | (fraction >> (2u + shift));
}

fn cosine_sine(angle: f32) -> vec2<f32> {
  let size = abs(angle);
  var turns = 0u;
  var x = size;
  if (size > 0.78) {
    let position = quarter_turns(bitcast<u32>(size));
    turns = (position + (1u << 29u)) >> 30u;
    x = f32(bitcast<i32>(position - (turns << 30u))) * 1.4629180792671596e-9; // pi / 2 * 2^-30
  }
  let s = x * x;
  let sine = x + x * s * (-1.6666667e-1 + s * (8.333333e-3 + s * (-1.984127e-4 + s * 2.7557319e-6)));
  let cosine = 1.0 + s * (-0.5 + s * (4.1666667e-2 + s * (-1.3888889e-3 + s * (2.4801587e-5 - s * 2.7557319e-7))));
  let swapped = (turns & 1u) == 1u;
  let c = select(cosine, sine, swapped) * select(1.0, -1.0, ((turns + 1u) & 2u) != 0u);
  let y = select(sine, cosine, swapped) * select(1.0, -1.0, (turns & 2u) != 0u);
  return vec2(c, select(y, -y, angle < 0.0));
}
