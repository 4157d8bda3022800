// Small matmuls on packed operands, for one instruction set.
//
// Included inside a namespace that has kLanes (floats in a vector) and kVectors (vectors across a
// tile): code belongs to the instruction set that it is written under. The sums of a tile, kRows
// rows by up to kVectors vectors, stay in registers; each step broadcasts kRows values of the left
// operand and reads one row of the right one.

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
typedef float InMemory __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

constexpr int64_t kRows = 6;  // of a tile

VMF_INLINE Vector load(const float* from) { return *reinterpret_cast<const InMemory*>(from); }
VMF_INLINE void store(float* to, Vector value) { *reinterpret_cast<InMemory*>(to) = value; }

enum class Left { plain, transposed };  // row r, step s lies at [r, s] or at [s, r]
enum class Into { empty, sum };         // the product replaces what is there, or is added to it

template <int vectors, Left left, Into into>
VMF_INLINE void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                     int64_t c_stride, int64_t steps) {
  Vector sum[kRows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      sum[r][v] = into == Into::sum ? load(c + r * c_stride + v * kLanes) : Vector{};
    }
  }
  for (int64_t step = 0; step < steps; ++step) {
    Vector row[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) row[v] = load(b + step * b_stride + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float value = left == Left::plain ? a[r * a_stride + step] : a[step * a_stride + r];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sum[r][v] += value * row[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(c + r * c_stride + v * kLanes, sum[r][v]);
  }
}

template <int vectors, Left left, Into into>
VMF_INLINE void panel(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                      int64_t c_stride, int64_t rows, int64_t steps) {
  for (int64_t row = 0; row < rows; row += kRows) {
    const float* from = a + row * (left == Left::plain ? a_stride : 1);
    tile<vectors, left, into>(from, a_stride, b, b_stride, c + row * c_stride, c_stride, steps);
  }
}

// c[rows, columns] (+)= a b; strides are of rows in memory. `columns` is rounded up to whole vectors
// and `rows` to whole tiles, so b, c and a have to be that wide and long. A row of the product
// depends on its own row of a alone, so what lies in the rows added does not matter.
template <Left left, Into into>
void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
              int64_t c_stride, int64_t rows, int64_t columns, int64_t steps) {
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  const int64_t panels = (vectors + kVectors - 1) / kVectors;
  static_assert(kVectors == 2 || kVectors == 4);
  for (int64_t i = 0; i < panels; ++i) {
    const int64_t first = vectors * i / panels, count = vectors * (i + 1) / panels - first;
    const float* right = b + first * kLanes;
    float* to = c + first * kLanes;
    if (count == 1) {
      panel<1, left, into>(a, a_stride, right, b_stride, to, c_stride, rows, steps);
    } else if (count == 2) {
      panel<2, left, into>(a, a_stride, right, b_stride, to, c_stride, rows, steps);
    } else if constexpr (kVectors > 2) {
      if (count == 3) {
        panel<3, left, into>(a, a_stride, right, b_stride, to, c_stride, rows, steps);
      } else {
        panel<4, left, into>(a, a_stride, right, b_stride, to, c_stride, rows, steps);
      }
    }
  }
}

typedef float Four __attribute__((vector_size(16)));
typedef float FourInMemory __attribute__((vector_size(16), aligned(4), may_alias));

// out[width, rows] = x[rows, width], both multiples of four.
inline void transpose(const float* x, int64_t x_stride, float* out, int64_t out_stride,
                      int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; row += 4) {
    for (int64_t column = 0; column < width; column += 4) {
      const float* from = x + row * x_stride + column;
      Four in[4];
      for (int i = 0; i < 4; ++i) {
        in[i] = *reinterpret_cast<const FourInMemory*>(from + i * x_stride);
      }
      const Four low = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
      const Four high = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
      const Four lower = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
      const Four higher = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
      const Four turned[4] = {__builtin_shufflevector(low, lower, 0, 1, 4, 5),
                              __builtin_shufflevector(low, lower, 2, 3, 6, 7),
                              __builtin_shufflevector(high, higher, 0, 1, 4, 5),
                              __builtin_shufflevector(high, higher, 2, 3, 6, 7)};
      float* to = out + column * out_stride + row;
      for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<FourInMemory*>(to + i * out_stride) = turned[i];
      }
    }
  }
}
