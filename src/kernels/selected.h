// A convolution at one element of each window alone, S(images, weight), for each channel the one at
// its position; and what a number g for each of these elements gives by the images and by the
// weight, as in the derivatives of g S(images, weight). Each is a fourth of the operations of the
// whole map.
//
// All are K times as large as said, or shared by the K, whose stride then is 0. The rows of a kernel
// are whole vectors. A sum does not depend on the number of threads.

#pragma once

#include <type_traits>
#include <vector>

#include "convolution.h"

namespace {

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

template <typename Array>
constexpr int rows_of = std::extent<std::remove_reference_t<Array>, 0>::value;
template <typename Array>
constexpr int columns_of = std::extent<std::remove_reference_t<Array>, 1>::value;

// Keeps the element at the position that each window has.
template <typename T> struct AtPositions {
  const uint8_t* positions;
  T* numbers;

  inline void operator()(int64_t at, Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) const {
    const Integers<T> position =
        __builtin_convertvector(load<Positions<T>>(positions + at), Integers<T>);
    store(numbers + at, position < 2 ? (position == 0 ? a : b) : (position == 2 ? c : d));
  }
};

struct Selected {
  static constexpr int SHORT_ROW = 16;

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
    if (length <= SHORT_ROW) return elements_of_maps(images, weight, positions, numbers);
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

  // The same by whole maps, many channels at once: of rows so short, adding up the vector of sums
  // of each single element takes longer.
  template <typename T>
  void elements_of_maps(const T* images, const T* weight, const uint8_t* positions,
                        T* numbers) const {
    const int64_t n_weights = kernel * length;
    std::vector<T> transposed(n_weights * O), bias(O);
    const Convolution of = {1, B, height, width, O, kernel, length / C, C,
                            0, 0, 0,      H * W * C, W * C};
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t o = 0; o < O; ++o)
        for (int64_t i = 0; i < n_weights; ++i)
          transposed[i * O + o] = weight[k * weight_stride + o * n_weights + i];
      of.take_all(images + k * images_stride, transposed.data(), bias.data(),
                  AtPositions<T>{positions + k * positions_stride,
                                 numbers + k * B * height * width * O});
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
