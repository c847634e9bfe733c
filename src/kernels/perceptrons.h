// Full-batch gradient descent of one small perceptron after the other (src/fragility/descent.py has
// the definitions). All samples' activations of such a network fit a cache, and its weights do, so
// that a step takes as long as its multiplications.
//
// Samples are taken in blocks of 32. Inputs are (blocks, features, 32), and so are activations and
// their derivatives; of weights (out, in + 1) the last column is the bias.

#pragma once

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "vectors.h"

namespace {

constexpr int SAMPLES = 32;
template <typename T> constexpr int PARTS = SAMPLES / LANES<T>;  // vectors of a block

template <typename T> struct Format;
template <> struct Format<double> {
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double rounding = 0x1.8p52, lowest = -700;
  static constexpr double log2_high = 6.93147180369123816490e-01;
  static constexpr double log2_low = 1.90821492927058770002e-10;
};
template <> struct Format<float> {
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float rounding = 0x1.8p23f, lowest = -80;
  static constexpr float log2_high = 6.9314575195e-1f, log2_low = 1.4286067653e-6f;
};

// exp(x) = power (1 + rest), for x up to 0; what is below `lowest` counts as that. NaN stays NaN.
template <typename T> struct Exponential {
  Vector<T> power, rest;

  explicit Exponential(Vector<T> x) {
    typedef Format<T> F;
    x = x < F::lowest ? Vector<T>{} + F::lowest : x;
    const Vector<T> shifted = x * T(1.44269504088896340736) + F::rounding;  // an integer's bits
    const Vector<T> n = shifted - F::rounding;
    const Vector<T> r = (x - n * F::log2_high) - n * F::log2_low;  // at most log(2) / 2 in size
    power = bits<Vector<T>>((bits<Integers<T>>(shifted) + F::bias) << F::mantissa);
    Vector<T> sum = Vector<T>{} + T(1.0 / 6227020800);  // Taylor's, to the 13th power
    double factorial = 6227020800;
    UNROLLED_MORE for (int k = 13; k > 1; --k) {
      factorial /= k;
      sum = sum * r + T(1 / factorial);
    }
    rest = sum * r;
  }
};

template <typename T> inline Vector<T> exponential(Vector<T> x) {
  const Exponential<T> e(x);
  return e.power + e.power * e.rest;
}

template <typename T> inline Vector<T> hyperbolic_tangent(Vector<T> x) {
  const Exponential<T> e(x < 0 ? 2 * x : -2 * x);
  const Vector<T> less_one = (e.power - 1) + e.power * e.rest;  // exact also near 0
  const Vector<T> size = -less_one / (2 + less_one);
  return x < 0 ? -size : size;
}

// What all networks have in common.
template <typename T> struct Perceptrons {
  int64_t n_layers;
  const int64_t* widths;  // of the inputs, each hidden layer, and the outputs
  int64_t n_blocks, is_tanh;
  const T* inputs;
  T scale, shrink, pull;  // a step is w <- shrink w - scale (sum of gradients) + pull anchor

  int64_t n_weights(int64_t layer) const { return widths[layer + 1] * (widths[layer] + 1); }
};

// Descends one network.
template <typename T> class Descent {
 public:
  explicit Descent(const Perceptrons<T>& of) : of(of) {
    int64_t n_units = 0, n_weights = 0, widest = 0;
    for (int64_t k = 0; k < of.n_layers; ++k) {
      n_weights += of.n_weights(k);
      n_units += of.widths[k + 1];
      widest = std::max({widest, of.widths[k], of.widths[k + 1]});
    }
    memory = new (std::align_val_t(64))
        T[n_weights * LANES<T> + (n_units + 2 * widest) * SAMPLES];
    T* free = memory;
    for (int64_t k = 0; k < of.n_layers; ++k) {
      gradients.push_back(free);
      free += of.n_weights(k) * LANES<T>;
    }
    units.push_back(nullptr);
    for (int64_t k = 0; k < of.n_layers; ++k) {
      units.push_back(free);
      free += of.widths[k + 1] * SAMPLES;
    }
    of_outputs = free;
    of_inputs = free + widest * SAMPLES;
  }
  Descent(const Descent&) = delete;
  Descent& operator=(const Descent&) = delete;
  ~Descent() { operator delete[](memory, std::align_val_t(64)); }

  // Changes the weights of each layer; anchors may be null where nothing pulls.
  void step(T* const* layers, const T* const* anchors, const T* kept, const T* targets) {
    std::fill(memory, units[1], T(0));
    for (int64_t block = 0; block < of.n_blocks; ++block) {
      units[0] = const_cast<T*>(of.inputs) + block * of.widths[0] * SAMPLES;
      for (int64_t k = 0; k < of.n_layers; ++k) forward(k, layers[k]);
      compare(kept + block * SAMPLES, targets + block * of.widths[of.n_layers] * SAMPLES);
      for (int64_t k = of.n_layers - 1; k >= 0; --k) backward(k, layers[k]);
    }
    for (int64_t k = 0; k < of.n_layers; ++k)
      for (int64_t i = 0; i < of.n_weights(k); ++i) {
        const T sum = sum_of<T>(load<Vector<T>>(gradients[k] + i * LANES<T>));
        layers[k][i] = of.shrink * layers[k][i] - of.scale * sum;
        if (of.pull != 0) layers[k][i] += of.pull * anchors[k][i];
      }
  }

 private:
  typedef Vector<T> V;
  static constexpr int N = PARTS<T>;

  const Perceptrons<T>& of;
  T* memory;
  std::vector<T*> gradients, units;
  T *of_outputs, *of_inputs;  // derivatives by a layer's

  static V part(const T* row, int v) { return load<V>(row + v * LANES<T>); }

  void forward(int64_t k, const T* weights) {
    const int64_t n_in = of.widths[k], n_out = of.widths[k + 1];
    const bool is_last = k == of.n_layers - 1;
    for (int64_t o = 0; o < n_out; ++o, weights += n_in + 1) {
      V sums[N];
      for (int v = 0; v < N; ++v) sums[v] = V{} + weights[n_in];
      for (int64_t i = 0; i < n_in; ++i)
        for (int v = 0; v < N; ++v) sums[v] += weights[i] * part(units[k] + i * SAMPLES, v);
      for (int v = 0; v < N; ++v) {
        if (!is_last) sums[v] = of.is_tanh ? hyperbolic_tangent<T>(sums[v]) : rectified(sums[v]);
        store(units[k + 1] + o * SAMPLES + v * LANES<T>, sums[v]);
      }
    }
  }

  static V rectified(V x) { return x < 0 ? V{} : x; }

  // The derivatives by the outputs: k softmax(f) - t.
  void compare(const T* kept, const T* targets) {
    const int64_t n_classes = of.widths[of.n_layers];
    const T* outputs = units[of.n_layers];
    for (int v = 0; v < N; ++v) {
      V largest = part(outputs, v), sum = {};
      for (int64_t c = 1; c < n_classes; ++c)
        largest = larger(part(outputs + c * SAMPLES, v), largest);
      for (int64_t c = 0; c < n_classes; ++c) {
        const V e = exponential<T>(part(outputs + c * SAMPLES, v) - largest);
        sum += e;
        store(of_outputs + c * SAMPLES + v * LANES<T>, e);
      }
      const V factor = part(kept, v) / sum;
      for (int64_t c = 0; c < n_classes; ++c)
        store(of_outputs + c * SAMPLES + v * LANES<T>,
              part(of_outputs + c * SAMPLES, v) * factor - part(targets + c * SAMPLES, v));
    }
  }

  void backward(int64_t k, const T* weights) {
    const int64_t n_in = of.widths[k], n_out = of.widths[k + 1];
    T* gradient = gradients[k];
    for (int64_t o = 0; o < n_out; ++o) {
      V by[N], all = {};
      for (int v = 0; v < N; ++v) all += by[v] = part(of_outputs + o * SAMPLES, v);
      for (int64_t i = 0; i < n_in; ++i, gradient += LANES<T>) {
        V sum = load<V>(gradient);
        for (int v = 0; v < N; ++v) sum += by[v] * part(units[k] + i * SAMPLES, v);
        store(gradient, sum);
      }
      store(gradient, load<V>(gradient) + all);
      gradient += LANES<T>;
    }
    if (k == 0) return;
    for (int64_t i = 0; i < n_in; ++i) {
      V sums[N] = {};
      for (int64_t o = 0; o < n_out; ++o)
        for (int v = 0; v < N; ++v)
          sums[v] += weights[o * (n_in + 1) + i] * part(of_outputs + o * SAMPLES, v);
      for (int v = 0; v < N; ++v) {
        const V unit = part(units[k] + i * SAMPLES, v);
        const V by = of.is_tanh ? sums[v] * (1 - unit * unit) : unit > 0 ? sums[v] : V{};
        store(of_inputs + i * SAMPLES + v * LANES<T>, by);
      }
    }
    std::swap(of_outputs, of_inputs);
  }
};

// Takes steps with a stack of networks: layers (members, out, in + 1) each, kept (members, blocks,
// 32), targets (members, blocks, classes, 32).
template <typename T>
void descend_all(const Perceptrons<T>& of, int64_t n_members, int64_t n_steps, const T* kept,
                 const T* targets, T* const* layers, const T* const* anchors) {
#pragma omp parallel for schedule(dynamic)
  for (int64_t m = 0; m < n_members; ++m) {
    Descent<T> descent(of);
    std::vector<T*> own(of.n_layers);
    std::vector<const T*> towards(of.n_layers);
    for (int64_t k = 0; k < of.n_layers; ++k) {
      own[k] = layers[k] + m * of.n_weights(k);
      towards[k] = anchors[k] + m * of.n_weights(k);
    }
    const int64_t n = m * of.n_blocks * SAMPLES;
    for (int64_t step = 0; step < n_steps; ++step)
      descent.step(own.data(), towards.data(), kept + n, targets + n * of.widths[of.n_layers]);
  }
}

}  // namespace
