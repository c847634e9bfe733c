// What is called from Python: GELU and max-pooling over windows of 2x2, alone and of convolutions,
// the derivatives of convolutions at the elements that pooling leaves, and gradient descent of
// perceptrons.

#include <cstdint>

#include "perceptrons.h"
#include "pool.h"
#include "selected.h"
#include "winograd.h"

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

// factors: scale, shrink and pull.
void descend(int64_t n_members, int64_t n_steps, int64_t n_layers, const int64_t* widths,
             int64_t n_blocks, int64_t is_tanh, const Number* inputs, const Number* kept,
             const Number* targets, Number* const* layers, const Number* const* anchors,
             const Number* factors) {
  const Perceptrons<Number> of{n_layers, widths,     n_blocks,   is_tanh,
                               inputs,   factors[0], factors[1], factors[2]};
  descend_all(of, n_members, n_steps, kept, targets, layers, anchors);
}

}  // extern "C"
