// GELU and max-pooling over windows of 2x2.
//
// Maps are channels last, (B, H, W, C) with H and W even and C a multiple of 32. A window is four
// elements a b / c d, each a vector of channels.
//
// GELU falls up to LOWEST and rises from there, so that its largest value in a window is that of
// the window's largest element or, where that is negative, perhaps that of the smallest. GELU rises
// more slowly than it falls: it is the smallest's only where that lies farther from LOWEST, a case so
// rare that it is asked for and left out where there is none. A window with a NaN gives NaN.

#pragma once

#include <cmath>

#include "vectors.h"

namespace {

constexpr double LOWEST = -0.751791524693564457;  // where the derivative of GELU is 0
constexpr double SQRT_HALF = 0.707106781186547524;

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

}  // namespace
