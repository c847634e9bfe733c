// Vectors of the processor's length, and how many of them are computed at once.

#pragma once

#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

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

}  // namespace
