// Included inside the namespace that uses it, once for each: code belongs to the instruction set
// that it is written under, and this is written under several (attention.cpp).

// exp(x) for x <= 0 and a little above, to 1e-7 relative; about 1e-38 below -87, NaN of NaN.
// Float is float with Int int32_t, or a vector of floats with a vector of int32_t.
template <typename Float, typename Int>
VMF_INLINE Float exp_negative(Float x) {
  const Float lowest = Float{} - 87.0f;
  x = x < lowest ? lowest : x;
  const Float shifted = x * 1.44269504f + 12582912.0f;  // rounds to an integer in the low bits
  const Float n = shifted - 12582912.0f;
  const Float f = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln 2 in two parts
  Float p = Float{} + 1.383679404e-03f;  // a minimax fit of relative error 2e-9
  p = p * f + 8.374857074e-03f;
  p = p * f + 4.166822868e-02f;
  p = p * f + 1.666641968e-01f;
  p = p * f + 4.999999206e-01f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  // The shift leaves n alone: the nine low bits of 12582912's pattern are zero.
  const Float scaled = __builtin_bit_cast(
      Float, __builtin_bit_cast(Int, p) + (__builtin_bit_cast(Int, shifted) << 23));
  return x == x ? scaled : x;
}
