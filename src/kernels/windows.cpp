// GELU and max-pooling over windows of 2x2, alone and of a convolution that is computed on the way.
//
// Maps are channels last, (B, H, W, C) with H and W even and C a multiple of 32. A window is four
// elements a b / c d, each a vector of channels.
//
// GELU falls up to LOWEST and rises from there, so that its largest value in a window is that of
// the window's largest element or, where that is negative, perhaps that of the smallest. GELU rises
// more slowly than it falls: it is the smallest's only where that lies farther from LOWEST, a case so
// rare that it is asked for and left out where there is none. A window with a NaN gives NaN.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr double LOWEST = -0.751791524693564457;  // where the derivative of GELU is 0
constexpr double SQRT_HALF = 0.707106781186547524;

// What is summed stays in registers: of a convolution the four elements of so many windows, two
// vectors each; of its gradients at most so many vectors.
#ifdef __AVX512F__
constexpr int BYTES = 64, WINDOWS = 2, GRADIENTS = 25;  // 32 registers
#elif defined(__aarch64__)
constexpr int BYTES = 16, WINDOWS = 2, GRADIENTS = 25;  // 32 registers
#else
constexpr int BYTES = 32, WINDOWS = 1, GRADIENTS = 12;  // 16 registers
#endif
constexpr int VECTORS = 2;
constexpr int TILES_IN_REGISTERS = GRADIENTS / VECTORS;  // with what is multiplied
#define UNROLLED _Pragma("GCC unroll 8")
#define UNROLLED_MORE _Pragma("GCC unroll 12")

template <typename T> struct Types;
template <> struct Types<float> {
  typedef float Vector __attribute__((vector_size(BYTES)));
  typedef int32_t Integers __attribute__((vector_size(BYTES)));
  typedef uint8_t Positions __attribute__((vector_size(BYTES / 4)));
};
template <> struct Types<double> {
  typedef double Vector __attribute__((vector_size(BYTES)));
  typedef int64_t Integers __attribute__((vector_size(BYTES)));
  typedef uint8_t Positions __attribute__((vector_size(BYTES / 8)));
};
template <typename T> using Vector = typename Types<T>::Vector;
// As large as the numbers: comparisons give vectors of 0 and -1.
template <typename T> using Integers = typename Types<T>::Integers;
// The position of an element in its window, 0 to 3, of each of a vector's channels.
template <typename T> using Positions = typename Types<T>::Positions;
template <typename T> constexpr int LANES = BYTES / sizeof(T);

template <typename V, typename T> inline V load(const T* from) {
  V vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <typename V, typename T> inline void store(T* to, const V& vector) {
  std::memcpy(to, &vector, sizeof vector);
}

template <typename V, typename W> inline V bits(const W& vector) { return load<V>(&vector); }

template <typename T> inline T sum_of(const Vector<T>& vector) {
  T numbers[LANES<T>];
  store(numbers, vector);
  UNROLLED for (int half = LANES<T> / 2; half > 0; half /= 2)
    UNROLLED for (int i = 0; i < half; ++i) numbers[i] += numbers[i + half];
  return numbers[0];
}
template <> inline float sum_of<float>(const Vector<float>& vector) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps(bits<__m512>(vector));
#else
  float sum = 0;
  for (int i = 0; i < LANES<float>; ++i) sum += vector[i];
  return sum;
#endif
}

template <typename V> inline V larger(V a, V b) { return a > b ? a : b; }
template <typename V> inline V smaller(V a, V b) { return a < b ? a : b; }

template <typename V> inline bool any(const V& mask) {
#ifdef __AVX512F__
  return _mm512_test_epi64_mask(bits<__m512i>(mask), bits<__m512i>(mask));
#else
  uint64_t words[sizeof(V) / 8], found = 0;
  std::memcpy(words, &mask, sizeof mask);
  UNROLLED for (uint64_t word : words) found |= word;
  return found;
#endif
}

inline Vector<double> error_function(Vector<double> z) {
  for (int i = 0; i < LANES<double>; ++i) z[i] = std::erf(z[i]);
  return z;
}

// A rational minimax fit on [-3.9, 3.9], off by 1.5e-8 at most; beyond, erf is 1 to 4e-8, and is
// made -1, for which GELU of a large negative number is 0.
inline Vector<float> error_function(Vector<float> z) {
  const Vector<float> limit = Vector<float>{} + 3.9f;
  z = larger(smaller(z, limit), -limit);
  const Vector<float> t = z * z;
  const Vector<float> p =
      ((((2.050386859e-6f * t + 2.874575409e-4f) * t + 3.836884493e-3f) * t + 5.296694286e-2f) * t +
       1.919411910e-1f) * t + 1.128379032f;
  const Vector<float> q =
      ((((3.823075317e-5f * t + 1.181736689e-3f) * t + 1.510922037e-2f) * t + 1.147582772e-1f) * t +
       5.034352296e-1f) * t + 1.0f;
  return z > -limit ? z * p / q : Vector<float>{} - 1.0f;
}

template <typename T> inline Vector<T> gelu(Vector<T> x) {
  return x * (T(0.5) + T(0.5) * error_function(x * T(SQRT_HALF)));
}

// Where GELU of a window's smallest element may exceed that of its largest.
template <typename V> inline auto by_smallest(V largest, V smallest) {
  return (largest < 0) & (largest + smallest < static_cast<decltype(largest[0] + 0)>(2 * LOWEST));
}

// Keeps the pooled GELU of windows.
template <typename T> struct Pool {
  T* pooled;

  inline void operator()(int64_t at, Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) const {
    const Vector<T> largest = larger(larger(a, b), larger(c, d));
    const Vector<T> smallest = smaller(smaller(a, b), smaller(c, d));
    const Vector<T> sum = (a + b) + (c + d);
    Vector<T> value = gelu<T>(largest);
    if (any(by_smallest(largest, smallest) | (sum != sum)))
      value = sum != sum ? sum : larger(value, gelu<T>(smallest));
    store(pooled + at, value);
  }
};

// Keeps the element of each window whose GELU is largest, the first of equals, and its position.
template <typename T> struct Largest {
  T* elements;
  uint8_t* positions;

  inline void operator()(int64_t at, Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) const {
    const Vector<T> above = larger(b, a), below = larger(d, c), sum = (a + b) + (c + d);
    const Vector<T> smallest = smaller(smaller(a, b), smaller(c, d));
    Vector<T> element = larger(below, above);
    Integers<T> position = below > above ? 2 - (d > c) : -(b > a);
    if (any(by_smallest(element, smallest) | (sum != sum))) {
      const Vector<T> above = smaller(b, a), below = smaller(d, c);
      const Integers<T> of_smallest = gelu<T>(smallest) > gelu<T>(element);
      position = of_smallest ? (below < above ? 2 - (d < c) : -(b < a)) : position;
      element = sum != sum ? sum : of_smallest ? smallest : element;
    }
    store(elements + at, element);
    store(positions + at, __builtin_convertvector(position, Positions<T>));
  }
};

// Where the first element of a window lies in maps of so many windows in a row.
inline int64_t first_element(int64_t window, int64_t width, int64_t C) {
  return (4 * (window / width) * width + 2 * (window % width)) * C;
}

// Has `keep` take all windows of maps.
template <typename T, typename Keep>
void take(const T* maps, int64_t n_windows, int64_t width, int64_t C, const Keep& keep) {
#pragma omp parallel for
  for (int64_t n = 0; n < n_windows; ++n) {
    const T *a = maps + first_element(n, width, C), *c = a + 2 * width * C;
    for (int64_t i = 0; i < C; i += LANES<T>)
      keep(n * C + i, load<Vector<T>>(a + i), load<Vector<T>>(a + C + i), load<Vector<T>>(c + i),
           load<Vector<T>>(c + C + i));
  }
}

// The gradient of maps: that of the elements at the positions, and 0 elsewhere.
template <typename T>
void scatter_to_maps(const T* gradient, const uint8_t* positions, int64_t n_windows,
                     int64_t width, int64_t C, T* maps) {
#pragma omp parallel for
  for (int64_t n = 0; n < n_windows; ++n) {
    T *a = maps + first_element(n, width, C), *c = a + 2 * width * C;
    for (int64_t i = 0; i < C; i += LANES<T>) {
      const Vector<T> g = load<Vector<T>>(gradient + n * C + i), zero = {};
      const Integers<T> position =
          __builtin_convertvector(load<Positions<T>>(positions + n * C + i), Integers<T>);
      store(a + i, position == 0 ? g : zero);
      store(a + C + i, position == 1 ? g : zero);
      store(c + i, position == 2 ? g : zero);
      store(c + C + i, position == 3 ? g : zero);
    }
  }
}

// The reverse, of maps in which a window has no more than one element that is not 0. Returns 0 where
// one has more.
template <typename T>
int64_t gather_from_maps(const T* maps, int64_t n_windows, int64_t width, int64_t C, T* gradient,
                         uint8_t* positions) {
  int64_t one_each = 1;
#pragma omp parallel for reduction(& : one_each)
  for (int64_t n = 0; n < n_windows; ++n) {
    const T *first = maps + first_element(n, width, C), *below = first + 2 * width * C;
    for (int64_t i = 0; i < C; i += LANES<T>) {
      const Vector<T> a = load<Vector<T>>(first + i), b = load<Vector<T>>(first + C + i),
                      c = load<Vector<T>>(below + i), d = load<Vector<T>>(below + C + i);
      // Each comparison is -1 where there is something.
      const Integers<T> in_b = b != 0, in_c = c != 0, in_d = d != 0;
      one_each &= !any(((a != 0) + in_b + in_c + in_d) < -1);
      store(gradient + n * C + i, (a + b) + (c + d));
      store(positions + n * C + i,
            __builtin_convertvector(-(in_b + 2 * in_c + 3 * in_d), Positions<T>));
    }
  }
  return one_each;
}

// Calls `compute(rows, vectors, y, v)`, the first two constants, for blocks of rows from y on and of
// vectors in them from v on: together all rows of a kernel, of so many vectors each.
template <int N, int ROWS, typename Compute>
inline void rows_in_blocks(int y, int n_rows, int v, const Compute& compute) {
  if constexpr (ROWS > 0) {
    for (; n_rows - y >= ROWS; y += ROWS)
      compute(std::integral_constant<int, ROWS>(), std::integral_constant<int, N>(), y, v);
    rows_in_blocks<N, ROWS - 1>(y, n_rows, v, compute);
  }
}

// The sizes are those of the networks here, 6 and 10 vectors of 16 in a row of 3 or 5; with rows of
// single vectors any other comes out, too.
template <typename Compute>
inline void in_blocks(int n_rows, int n_vectors, const Compute& compute) {
  int v = 0;
  for (; n_vectors - v >= 6; v += 6) rows_in_blocks<6, GRADIENTS / 6>(0, n_rows, v, compute);
  for (; n_vectors - v >= 5; v += 5) rows_in_blocks<5, GRADIENTS / 5>(0, n_rows, v, compute);
  for (; n_vectors - v >= 1; v += 1) rows_in_blocks<1, 5>(0, n_rows, v, compute);
}

// Convolutions of stride 1, without padding, of images (B, H, W, C), K of them: what all share has
// the stride 0 over the K. Rows, and images, may lie apart. A weight is (kernel, kernel, C, O): a row
// of it lies as the row of pixels that it is multiplied with.
struct Convolution {
  int64_t K, B, height, width, O;  // of the pooled maps (K, B, height, width, O)
  int64_t kernel, C;
  int64_t images_stride, weight_stride, bias_stride;  // over the K
  int64_t image_stride, row_stride;                   // of the images

  // Has `keep` take N windows that begin at the given pixels, of VECTORS vectors of channels, and that
  // are kept from `at` on.
  template <int N, typename T, typename Keep>
  inline void take(const T* const (&first)[N], const T* weight, const T* bias, int64_t at,
                   const Keep& keep) const {
    Vector<T> sums[N][4][VECTORS];
    UNROLLED for (int n = 0; n < N; ++n) UNROLLED for (int v = 0; v < VECTORS; ++v)
      sums[n][0][v] = sums[n][1][v] = sums[n][2][v] = sums[n][3][v] =
          load<Vector<T>>(bias + v * LANES<T>);
    for (int64_t y = 0; y < kernel; ++y)
      for (int64_t x = y * row_stride; x < y * row_stride + kernel * C; ++x, weight += O)
        UNROLLED for (int v = 0; v < VECTORS; ++v) {
          const Vector<T> weights = load<Vector<T>>(weight + v * LANES<T>);
          UNROLLED for (int n = 0; n < N; ++n) {
            const T *above = first[n] + x, *below = above + row_stride;
            sums[n][0][v] += above[0] * weights;
            sums[n][1][v] += above[C] * weights;
            sums[n][2][v] += below[0] * weights;
            sums[n][3][v] += below[C] * weights;
          }
        }
    UNROLLED for (int n = 0; n < N; ++n) UNROLLED for (int v = 0; v < VECTORS; ++v)
      keep(at + n * O + v * LANES<T>, sums[n][0][v], sums[n][1][v], sums[n][2][v], sums[n][3][v]);
  }

  // Has `keep` take all windows, WINDOWS at a time, of as many images, so that few are left over.
  template <typename T, typename Keep>
  void take_all(const T* images, const T* weight, const T* bias, const Keep& keep) const {
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t b = 0; b < B; b += WINDOWS) {
        const Convolution of = *this;  // no store to memory can change a copy
        const T* image = images + k * of.images_stride + b * of.image_stride;
        const T *weight_k = weight + k * of.weight_stride, *bias_k = bias + k * of.bias_stride;
        const int64_t n_images = of.B - b < WINDOWS ? of.B - b : WINDOWS;
        const int64_t n_windows = n_images * of.height * of.width;
        int64_t at = (k * of.B + b) * of.height * of.width * of.O, y = 0, x = 0;
        const auto next = [&] {  // where the next window begins
          const T* first = image + 2 * (y * of.row_stride + x * of.C);
          if (++x == of.width) {
            x = 0;
            if (++y == of.height) y = 0, image += of.image_stride;
          }
          return first;
        };
        const auto take_some = [&](const auto& first) {
          for (int64_t o = 0; o < of.O; o += VECTORS * LANES<T>)
            of.take(first, weight_k + o, bias_k + o, at + o, keep);
        };
        int64_t n = 0;
        for (; n + WINDOWS <= n_windows; n += WINDOWS, at += WINDOWS * of.O) {
          const T* first[WINDOWS];
          UNROLLED for (int i = 0; i < WINDOWS; ++i) first[i] = next();
          take_some(first);
        }
        for (; n < n_windows; ++n, at += of.O) {
          const T* first[1] = {next()};
          take_some(first);
        }
      }
  }
};

// The same with fewer multiplications: 16 instead of 36 for a window of each pair of channels of a
// kernel of 3x3, 49 instead of 100 of one of 5x5.
//
// A window is a tile of the minimal filtering F(2x2, 3x3) of Winograd (Lavin and Gray 2016): its 4x4
// pixels and the weight are transformed, multiplied element by element, summed over the input's
// channels, and the sums transformed back. A kernel of 5x5 is four pieces, of 3x3, 3x2, 2x3 and 2x2,
// with nothing in the third column or row of the small ones, so that the fourth column or row of
// their products is 0. (Minimal filtering of 5x5 itself takes 36, and loses digits.)
template <int PIECES> struct Winograd {
  static constexpr int SIDE = PIECES == 1 ? 1 : 2;  // pieces in a row
  static constexpr int ELEMENTS = 16;               // of a transformed tile
  static constexpr int TILES = 12;                  // at once
  static constexpr int STRIDE = 128 / PIECES + 16;  // over tiles, for at most 128 / PIECES C

  const Convolution of;

  // Rows, or columns, of the pieces in a row or column of them.
  static constexpr int size(int i) { return i == 0 ? 3 : 2; }
  static constexpr bool is_zero(int piece, int element) {
    return (size(piece / SIDE) == 2 && element / 4 == 3) ||
           (size(piece % SIDE) == 2 && element % 4 == 3);
  }

  // Of three numbers of a weight, G.
  template <typename V> static inline void transform_weight(V a, V b, V c, V (&to)[4]) {
    const V half = V{} + 0.5f;
    to[0] = a, to[1] = half * (a + b + c), to[2] = half * (a - b + c), to[3] = c;
  }

  // Of four pixels, Bᵀ.
  template <typename V> static inline void transform_pixels(const V (&d)[4], V (&to)[4]) {
    to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
  }

  // Writes weights (K, PIECES, ELEMENTS, C, O): G w Gᵀ.
  template <typename T> void transform_weights(const T* weight, T* transformed) const {
    const int64_t n_weights = of.weight_stride == 0 ? 1 : of.K, step = of.C * of.O;
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < n_weights; ++k)
      for (int64_t i = 0; i < step; i += LANES<T>)
        for (int piece = 0; piece < PIECES; ++piece) {
          const int64_t first = 3 * (piece / SIDE * of.kernel + piece % SIDE);
          const T* from = weight + (k * of.kernel * of.kernel + first) * step + i;
          Vector<T> w[3][3] = {}, columns[3][4], rows[4];
          for (int y = 0; y < size(piece / SIDE); ++y)
            for (int x = 0; x < size(piece % SIDE); ++x)
              w[y][x] = load<Vector<T>>(from + (y * of.kernel + x) * step);
          for (int x = 0; x < 3; ++x) transform_weight(w[0][x], w[1][x], w[2][x], columns[x]);
          T* to = transformed + (k * PIECES + piece) * ELEMENTS * step + i;
          for (int y = 0; y < 4; ++y) {
            transform_weight(columns[0][y], columns[1][y], columns[2][y], rows);
            for (int x = 0; x < 4; ++x, to += step) store(to, rows[x]);
          }
        }
  }

  // Writes one of the tiles (ELEMENTS, TILES, STRIDE) of a piece: Bᵀ d B of 4x4 pixels, of which
  // those that only products of 0 depend on may not be there.
  template <int ROWS, int COLUMNS, typename T>
  inline void transform_tile(const T* pixels, T* tile) const {
    for (int64_t c = 0; c < of.C; c += LANES<T>) {
      Vector<T> columns[4][4], rows[4][4], elements[4];
      UNROLLED for (int x = 0; x < 4; ++x) {
        Vector<T> d[4] = {};
        if (x <= COLUMNS) UNROLLED for (int y = 0; y <= ROWS; ++y)
          d[y] = load<Vector<T>>(pixels + y * of.row_stride + x * of.C + c);
        transform_pixels(d, columns[x]);
      }
      UNROLLED for (int y = 0; y < 4; ++y) {
        UNROLLED for (int x = 0; x < 4; ++x) rows[y][x] = columns[x][y];
        transform_pixels(rows[y], elements);
        UNROLLED for (int x = 0; x < 4; ++x)
          store(tile + (4 * y + x) * TILES * STRIDE + c, elements[x]);
      }
    }
  }

  template <int PIECE, typename T>
  inline void transform_pieces(const T* pixels, T* tile) const {
    if constexpr (PIECE < PIECES) {
      constexpr int Y = PIECE / SIDE, X = PIECE % SIDE;
      transform_tile<size(Y), size(X)>(pixels + 3 * (Y * of.row_stride + X * of.C),
                                       tile + PIECE * ELEMENTS * TILES * STRIDE);
      transform_pieces<PIECE + 1>(pixels, tile);
    }
  }

  // Writes products (ELEMENTS, TILES, CHANNELS) of all tiles with the weights of some channels.
  template <int CHANNELS, typename T>
  inline void multiply(const T* tiles, const T* weight, T* products) const {
    constexpr int N = CHANNELS / LANES<T>;
    for (int element = 0; element < ELEMENTS; ++element)
      for (int first = 0; first < TILES; first += TILES_IN_REGISTERS) {
        Vector<T> sums[TILES_IN_REGISTERS][N] = {};
        for (int piece = 0; piece < PIECES; ++piece) {
          if (is_zero(piece, element)) continue;
          const int i = piece * ELEMENTS + element;
          const T* tile = tiles + (i * TILES + first) * STRIDE;
          const T* w = weight + i * of.C * of.O;
          for (int64_t c = 0; c < of.C; ++c, w += of.O) {
            Vector<T> weights[N];
            UNROLLED for (int n = 0; n < N; ++n) weights[n] = load<Vector<T>>(w + n * LANES<T>);
            UNROLLED_MORE for (int j = 0; j < TILES_IN_REGISTERS; ++j)
              UNROLLED for (int n = 0; n < N; ++n) sums[j][n] += tile[j * STRIDE + c] * weights[n];
          }
        }
        UNROLLED_MORE for (int j = 0; j < TILES_IN_REGISTERS; ++j)
          UNROLLED for (int n = 0; n < N; ++n)
            store(products + ((element * TILES + first + j) * N + n) * LANES<T>, sums[j][n]);
      }
  }

  // Has `keep` take a window, Aᵀ m A of products m, of CHANNELS channels that are kept from `at` on.
  template <int CHANNELS, typename T, typename Keep>
  inline void transform_back(const T* products, const T* bias, int64_t at, const Keep& keep) const {
    for (int64_t o = 0; o < CHANNELS; o += LANES<T>) {
      Vector<T> above[4], below[4];
      UNROLLED for (int x = 0; x < 4; ++x) {
        Vector<T> m[4];
        UNROLLED for (int y = 0; y < 4; ++y)
          m[y] = load<Vector<T>>(products + (4 * y + x) * TILES * CHANNELS + o);
        above[x] = m[0] + m[1] + m[2], below[x] = m[1] - m[2] - m[3];
      }
      const Vector<T> b = load<Vector<T>>(bias + o);
      keep(at + o, above[0] + above[1] + above[2] + b, above[1] - above[2] - above[3] + b,
           below[0] + below[1] + below[2] + b, below[1] - below[2] - below[3] + b);
    }
  }

  // Has `keep` take all windows. `transformed` is memory for the transformed weights.
  template <typename T, typename Keep>
  void take_all(const T* images, const T* weight, const T* bias, T* transformed,
                const Keep& keep) const {
    constexpr int CHANNELS = VECTORS * LANES<T>;
    transform_weights(weight, transformed);
    const int64_t of_image = of.height * of.width, n_windows = of.B * of_image;
    const int64_t n_blocks = (n_windows + TILES - 1) / TILES;
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < of.K; ++k)
      for (int64_t block = 0; block < n_blocks; ++block) {
        alignas(64) T tiles[PIECES * ELEMENTS * TILES * STRIDE];
        alignas(64) T products[ELEMENTS * TILES * CHANNELS];
        const int64_t from = block * TILES;
        const int n = n_windows - from < TILES ? n_windows - from : TILES;
        for (int i = 0; i < TILES; ++i) {
          const int64_t window = from + (i < n ? i : 0);  // where there is none, any other
          const int64_t y = window % of_image / of.width, x = window % of.width;
          transform_pieces<0>(images + k * of.images_stride + window / of_image * of.image_stride +
                                  2 * (y * of.row_stride + x * of.C),
                              tiles + i * STRIDE);
        }
        const int64_t of_weight = of.weight_stride == 0 ? 0 : k;
        const T* weight_k = transformed + of_weight * PIECES * ELEMENTS * of.C * of.O;
        for (int64_t o = 0; o < of.O; o += CHANNELS) {
          multiply<CHANNELS>(tiles, weight_k + o, products);
          for (int i = 0; i < n; ++i)
            transform_back<CHANNELS>(products + i * CHANNELS, bias + k * of.bias_stride + o,
                                     (k * n_windows + from + i) * of.O + o, keep);
        }
      }
  }
};

// Has `keep` take all windows of convolutions; where there is memory for it, by transformed weights.
template <typename T, typename Keep>
void take_all(const Convolution& of, const T* images, const T* weight, const T* bias,
              T* transformed, const Keep& keep) {
  if (!transformed)
    of.take_all(images, weight, bias, keep);
  else if (of.kernel == 3)
    Winograd<1>{of}.take_all(images, weight, bias, transformed, keep);
  else
    Winograd<4>{of}.take_all(images, weight, bias, transformed, keep);
}

template <typename Array>
constexpr int rows_of = std::extent<std::remove_reference_t<Array>, 0>::value;
template <typename Array>
constexpr int columns_of = std::extent<std::remove_reference_t<Array>, 1>::value;

// A convolution at one element of each window alone, S(images, weight), for each channel the one at
// its position; and what a number g for each of these elements gives by the images and by the
// weight, as in the derivatives of g S(images, weight). Each is a fourth of the operations of the
// whole map.
//
// All are K times as large as said, or shared by the K, whose stride then is 0. The rows of a kernel
// are whole vectors. A sum does not depend on the number of threads.
struct Selected {
  int64_t K, B, height, width, O;  // of the elements and their positions (B, height, width, O)
  int64_t kernel, length;          // of the weight (O, kernel, length)
  // Of the images (B, H, W, C), in which `length` numbers from a pixel on are a row of a kernel.
  int64_t H, W, C;
  int64_t images_stride, weight_stride, numbers_stride, positions_stride;  // over the K

  inline int64_t pixel(int64_t b, int64_t h) const { return (b * H + 2 * h) * W * C; }

  inline int64_t to_element(uint8_t position) const {
    return ((position & 1) + (position >> 1) * W) * C;
  }

  // Calls `compute(at, first)` for the windows of an image: where the elements of all channels begin
  // in (B, height, width, O), and row y of the kernel, of a window's first element, in the images.
  template <typename Compute>
  inline void each_window(int64_t b, int y, const Compute& compute) const {
    for (int64_t h = 0; h < height; ++h) {
      int64_t at = (b * height + h) * width * O, first = pixel(b, h) + y * W * C;
      for (int64_t w = 0; w < width; ++w, at += O, first += 2 * C) compute(at, first);
    }
  }

  // Has `compute(rows, vectors, y, from)` do the weight's rows block by block.
  template <typename T, typename Compute> inline void each_block(const Compute& compute) const {
    in_blocks(kernel, length / LANES<T>, [&](auto rows, auto vectors, int y, int v) {
      compute(rows, vectors, y, v * LANES<T>);
    });
  }

  // The same with the block's weights, for each of the weight's O.
  template <typename T, typename Compute>
  inline void each_block_of(const T* weight, const Compute& compute) const {
    for (int64_t o = 0; o < O; ++o)
      each_block<T>([&](auto rows, auto vectors, int y, int from) {
        constexpr int R = decltype(rows)::value, N = decltype(vectors)::value;
        const T* first = weight + (o * kernel + y) * length + from;
        Vector<T> w[R][N];
        UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int n = 0; n < N; ++n)
          w[r][n] = load<Vector<T>>(first + r * length + n * LANES<T>);
        compute(w, o, y, from);
      });
  }

  // The elements.
  template <typename T>
  void elements(const T* images, const T* weight, const uint8_t* positions, T* numbers) const {
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t b = 0; b < B; ++b) {
        const T *images_k = images + k * images_stride, *weight_k = weight + k * weight_stride;
        const uint8_t* positions_k = positions + k * positions_stride;
        T* numbers_k = numbers + k * B * height * width * O;
        std::memset(numbers_k + b * height * width * O, 0, height * width * O * sizeof(T));
        each_block_of(weight_k, [&](const auto& w, int64_t o, int y, int from) {
          constexpr int R = rows_of<decltype(w)>, N = columns_of<decltype(w)>;
          each_window(b, y, [&](int64_t at, int64_t first) {
            const T* row = images_k + first + to_element(positions_k[at + o]) + from;
            Vector<T> sums[R] = {};
            UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int n = 0; n < N; ++n)
              sums[r] += load<Vector<T>>(row + r * W * C + n * LANES<T>) * w[r][n];
            UNROLLED for (int r = 1; r < R; ++r) sums[0] += sums[r];
            numbers_k[at + o] += sum_of<T>(sums[0]);
          });
        });
      }
  }

  // The gradient of the images.
  template <typename T>
  void by_images(const T* numbers, const T* weight, const uint8_t* positions, T* images) const {
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t b = 0; b < B; ++b) {
        const T *numbers_k = numbers + k * numbers_stride, *weight_k = weight + k * weight_stride;
        const uint8_t* positions_k = positions + k * positions_stride;
        T* images_k = images + k * B * H * W * C;
        std::memset(images_k + b * H * W * C, 0, H * W * C * sizeof(T));
        each_block_of(weight_k, [&](const auto& w, int64_t o, int y, int from) {
          constexpr int R = rows_of<decltype(w)>, N = columns_of<decltype(w)>;
          const Selected of = *this;  // no store to memory can change a copy
          of.each_window(b, y, [=](int64_t at, int64_t first) {
            T* row = images_k + first + of.to_element(positions_k[at + o]) + from;
            const T g = numbers_k[at + o];
            UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int n = 0; n < N; ++n) {
              T* to = row + r * of.W * of.C + n * LANES<T>;
              store(to, load<Vector<T>>(to) + g * w[r][n]);
            }
          });
        });
      }
  }

  // The gradient of the weight.
  template <typename T>
  void by_weight(const T* images, const T* numbers, const uint8_t* positions, T* weight) const {
    constexpr int64_t CHANNELS = 16;  // whose numbers lie in one or two lines of the cache
    const int64_t n_weights = kernel * length;
#pragma omp parallel for collapse(2)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t from_o = 0; from_o < O; from_o += CHANNELS) {
        const T *images_k = images + k * images_stride, *numbers_k = numbers + k * numbers_stride;
        const uint8_t* positions_k = positions + k * positions_stride;
        T* weight_k = weight + k * O * n_weights;
        std::memset(weight_k + from_o * n_weights, 0, CHANNELS * n_weights * sizeof(T));
        for (int64_t b = 0; b < B; ++b)
          each_block<T>([&](auto rows, auto vectors, int y, int from) {
            constexpr int R = decltype(rows)::value, N = decltype(vectors)::value;
            constexpr int OUTPUTS = at_once(R * N);
            for (int64_t o = from_o; o < from_o + CHANNELS; o += OUTPUTS) {
              Vector<T> sums[OUTPUTS][R][N] = {};
              each_window(b, y, [&](int64_t at, int64_t first) {
                UNROLLED for (int i = 0; i < OUTPUTS; ++i) {
                  const int64_t element = at + o + i;
                  const T *row = images_k + first + to_element(positions_k[element]) + from;
                  const T g = numbers_k[element];
                  UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int n = 0; n < N; ++n)
                    sums[i][r][n] += g * load<Vector<T>>(row + r * W * C + n * LANES<T>);
                }
              });
              UNROLLED for (int i = 0; i < OUTPUTS; ++i) {
                T* to = weight_k + ((o + i) * kernel + y) * length + from;
                UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int n = 0; n < N; ++n) {
                  T* vector = to + r * length + n * LANES<T>;
                  store(vector, load<Vector<T>>(vector) + sums[i][r][n]);
                }
              }
            }
          });
      }
  }

  // Of how many channels, a power of 2, the sums fit into registers.
  static constexpr int at_once(int n_vectors) {
    int n = 1;
    while (n < 8 && 2 * n * n_vectors <= GRADIENTS) n *= 2;
    return n;
  }
};

}  // namespace

using Number = NUMBER;  // float or double, as the compiler is told

extern "C" {

void pool(const Number* maps, int64_t n_windows, int64_t width, int64_t C, Number* pooled) {
  take(maps, n_windows, width, C, Pool<Number>{pooled});
}

void largest(const Number* maps, int64_t n_windows, int64_t width, int64_t C, Number* elements,
             uint8_t* positions) {
  take(maps, n_windows, width, C, Largest<Number>{elements, positions});
}

void convolve_and_pool(const Convolution* of, const Number* images, const Number* weight,
                       const Number* bias, Number* transformed, Number* pooled) {
  take_all(*of, images, weight, bias, transformed, Pool<Number>{pooled});
}

void largest_of_convolution(const Convolution* of, const Number* images, const Number* weight,
                            const Number* bias, Number* transformed, Number* elements,
                            uint8_t* positions) {
  take_all(*of, images, weight, bias, transformed, Largest<Number>{elements, positions});
}

void selected_elements(const Selected* of, const Number* images, const Number* weight,
                       const uint8_t* positions, Number* numbers) {
  of->elements(images, weight, positions, numbers);
}

void selected_by_images(const Selected* of, const Number* numbers, const Number* weight,
                        const uint8_t* positions, Number* images) {
  of->by_images(numbers, weight, positions, images);
}

void selected_by_weight(const Selected* of, const Number* images, const Number* numbers,
                        const uint8_t* positions, Number* weight) {
  of->by_weight(images, numbers, positions, weight);
}

int64_t gather(const Number* maps, int64_t n_windows, int64_t width, int64_t C, Number* gradient,
               uint8_t* positions) {
  return gather_from_maps(maps, n_windows, width, C, gradient, positions);
}

void scatter(const Number* gradient, const uint8_t* positions, int64_t n_windows, int64_t width,
             int64_t C, Number* maps) {
  scatter_to_maps(gradient, positions, n_windows, width, C, maps);
}

}  // extern "C"
