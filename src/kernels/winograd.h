// Convolutions with fewer multiplications: 16 instead of 36 for a window of each pair of channels of
// a kernel of 3x3, 49 instead of 100 of one of 5x5.
//
// A window is a tile of the minimal filtering F(2x2, 3x3) of Winograd (Lavin and Gray 2016): its 4x4
// pixels and the weight are transformed, multiplied element by element, summed over the input's
// channels, and the sums transformed back. A kernel of 5x5 is four pieces, of 3x3, 3x2, 2x3 and 2x2,
// with nothing in the third column or row of the small ones, so that the fourth column or row of
// their products is 0. (Minimal filtering of 5x5 itself takes 36, and loses digits.)

#pragma once

#include "convolution.h"

namespace {

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

}  // namespace
