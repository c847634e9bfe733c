// Convolutions whose maps are taken window by window, and never are in memory.

#pragma once

#include "vectors.h"

namespace {

// Convolutions of stride 1, without padding, of images (B, H, W, C), K of them: what all share has
// the stride 0 over the K. Rows, and images, may lie apart. A weight is (kernel, columns, C, O): a row
// of it lies as the row of pixels that it is multiplied with.
struct Convolution {
  int64_t K, B, height, width, O;  // of the pooled maps (K, B, height, width, O)
  int64_t kernel, columns, C;  // rows and columns of the kernel
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
      for (int64_t x = y * row_stride; x < y * row_stride + columns * C; ++x, weight += O)
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

}  // namespace
