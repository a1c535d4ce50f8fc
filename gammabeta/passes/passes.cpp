// The memory passes of BatchNorm + ReLU (+ add), forward and backward, on a CPU.
//
// Tensors are rows x channels, contiguous (channels_last images), channels a multiple of 16, fp32 or
// bf16; everything per channel is fp32. Each pass reads and writes memory once. Rows are cut into
// chunks of fixed size whose sums are merged in order, so the number of threads changes nothing.
// NaN passes through the ReLU: max(0, NaN) must not be 0, or a broken input would look healthy.
// twin.py is the slow twin.

#include "lanes.h"

namespace {

constexpr int64_t CHUNK = 1024;  // rows
constexpr int64_t BLOCK = 128;   // rows summed before they join the chunk's sum: rounding stays small

struct Shape {
  int64_t rows, channels;
  int threads;
  int64_t chunks() const { return (rows + CHUNK - 1) / CHUNK; }
};

// body(first row, last row, chunk, vectors in a row)
template <class Body> void each_chunk(const Shape& shape, Body body) {
#pragma omp parallel for schedule(static) num_threads(shape.threads)
  for (int64_t k = 0; k < shape.chunks(); k++) {
    int64_t from = k * CHUNK, to = from + CHUNK < shape.rows ? from + CHUNK : shape.rows;
    with_width(shape.channels, [&](auto vectors) { body(from, to, k, vectors); });
  }
}

// Mean and biased variance of each channel. Each chunk is summed around its own first row, so a mean
// far from zero costs no precision; chunks are merged by Chan's formula in double precision.
template <class T>
void measure(const T* z, float* mean, float* var, const Shape& shape) {
  const int64_t C = shape.channels;
  std::vector<float> sums(shape.chunks() * 2 * C);
  each_chunk(shape, [&](int64_t from, int64_t to, int64_t k, auto vectors) {
    const int n = vectors;
    V s1[MOST_WIDE], s2[MOST_WIDE], b1[MOST_WIDE], b2[MOST_WIDE], c[MOST_WIDE];
    for (int v = 0; v < n; v++) s1[v] = s2[v] = V{}, c[v] = load(z + from * C + v * LANES);
    for (int64_t start = from; start < to; start += BLOCK) {
      for (int v = 0; v < n; v++) b1[v] = b2[v] = V{};
      for (int64_t r = start; r < to && r < start + BLOCK; r++)
        for (int v = 0; v < n; v++) {
          V d = load(z + r * C + v * LANES) - c[v];
          b1[v] += d;
          b2[v] += d * d;
        }
      for (int v = 0; v < n; v++) s1[v] += b1[v], s2[v] += b2[v];
    }
    V count = all((float)(to - from));
    for (int v = 0; v < n; v++) {
      V shift = s1[v] / count;
      store(&sums[(2 * k) * C + v * LANES], c[v] + shift);
      store(&sums[(2 * k + 1) * C + v * LANES], s2[v] - s1[v] * shift);
    }
  });
  auto rows_of = [&](int64_t k) {
    return (k + 1) * CHUNK < shape.rows ? CHUNK : shape.rows - k * CHUNK;
  };
  merge(sums.data(), shape.chunks(), C, rows_of, mean, var);
}

// out = s z + t (+ skip, or + s2 skip + t2), then perhaps a ReLU; bits: [out > 0], one a value.
template <class T>
void normalise(const T* z, const float* s, const float* t, const T* skip, const float* s2,
               const float* t2, T* out, uint16_t* bits, bool relu, const Shape& shape) {
  const int64_t C = shape.channels;
  each_chunk(shape, [&](int64_t from, int64_t to, int64_t, auto vectors) {
    const int n = vectors;
    auto run = [&](auto add) {
      for (int64_t r = from; r < to; r++)
        for (int v = 0; v < n; v++) {
          const int64_t i = r * C + v * LANES;
          V y = load(z + i) * load(s + v * LANES) + load(t + v * LANES);
          y = add(y, i, v);
          if (relu) y = y < 0 ? V{} : y;
          store(out + i, y);
          if (bits) bits[i / LANES] = bits_of(load(out + i) > 0);  // of what is stored
        }
    };
    if (!skip) run([](V y, int64_t, int) { return y; });
    else if (!s2) run([&](V y, int64_t i, int) { return y + load(skip + i); });
    else run([&](V y, int64_t i, int v) {
      return y + (load(skip + i) * load(s2 + v * LANES) + load(t2 + v * LANES));
    });
  });
}

// The sums BatchNorm's backward needs: dbeta = sum u, dgamma = sum u x_hat, and dgamma2 the same
// with the x_hat of z2. u = g (+ more) where the ReLU is open: by `bits`, else where s z + t > 0
// (s given), else everywhere. u is written where a place for it is given.
template <class T>
void sums(const T* g, const T* more, const T* z, const float* mean, const float* inv,
          const float* s, const float* t, const uint16_t* bits, const T* z2, const float* mean2,
          const float* inv2, T* u_out, float* dbeta, float* dgamma, float* dgamma2,
          const Shape& shape) {
  const int64_t C = shape.channels;
  std::vector<float> partial(shape.chunks() * 3 * C);
  each_chunk(shape, [&](int64_t from, int64_t to, int64_t k, auto vectors) {
    const int n = vectors;
    V sum_a[MOST_WIDE], sum_b[MOST_WIDE], sum_b2[MOST_WIDE], a[MOST_WIDE], b[MOST_WIDE], b2[MOST_WIDE];
    for (int v = 0; v < n; v++) sum_a[v] = sum_b[v] = sum_b2[v] = V{};
    auto run = [&](auto value) {
      for (int64_t start = from; start < to; start += BLOCK) {
        for (int v = 0; v < n; v++) a[v] = b[v] = b2[v] = V{};
        for (int64_t r = start; r < to && r < start + BLOCK; r++)
          for (int v = 0; v < n; v++) {
            const int64_t i = r * C + v * LANES;
            const int at = v * LANES;
            V zi = load(z + i);
            V u = value(i, v, zi);
            if (u_out) {
              store(u_out + i, u);
              u = load(u_out + i);  // the sums are of what is stored
            }
            a[v] += u;
            b[v] += u * ((zi - load(mean + at)) * load(inv + at));
            if (z2) b2[v] += u * ((load(z2 + i) - load(mean2 + at)) * load(inv2 + at));
          }
        for (int v = 0; v < n; v++) sum_a[v] += a[v], sum_b[v] += b[v], sum_b2[v] += b2[v];
      }
    };
    auto both = [&](int64_t i) { return more ? load(g + i) + load(more + i) : load(g + i); };
    if (bits) run([&](int64_t i, int, V) { return where(bits[i / LANES], both(i)); });
    else if (s) run([&](int64_t i, int v, V zi) {
      return where(zi * load(s + v * LANES) + load(t + v * LANES) > 0, load(g + i));
    });
    else run([&](int64_t i, int, V) { return both(i); });
    for (int v = 0; v < n; v++) {
      store(&partial[(3 * k) * C + v * LANES], sum_a[v]);
      store(&partial[(3 * k + 1) * C + v * LANES], sum_b[v]);
      store(&partial[(3 * k + 2) * C + v * LANES], sum_b2[v]);
    }
  });
  add_up(partial.data(), shape.chunks(), C, dbeta, dgamma, dgamma2);
}

// dz = s (u - k1 - x_hat k2), where u = g where s z + t > 0 if t is given, else g.
template <class T>
void input_gradient(const T* g, const T* z, const float* mean, const float* inv, const float* s,
                    const float* t, const float* k1, const float* k2, T* dz, const Shape& shape) {
  const int64_t C = shape.channels;
  each_chunk(shape, [&](int64_t from, int64_t to, int64_t, auto vectors) {
    const int n = vectors;
    auto run = [&](auto value) {
      for (int64_t r = from; r < to; r++)
        for (int v = 0; v < n; v++) {
          const int64_t i = r * C + v * LANES;
          const int at = v * LANES;
          V zi = load(z + i);
          V x = (zi - load(mean + at)) * load(inv + at);
          store(dz + i, load(s + at) * (value(i, at, zi) - load(k1 + at) - x * load(k2 + at)));
        }
    };
    if (t) run([&](int64_t i, int at, V zi) {
      return where(zi * load(s + at) + load(t + at) > 0, load(g + i));
    });
    else run([&](int64_t i, int, V) { return load(g + i); });
  });
}

}  // namespace

#define BOTH(T, NAME)                                                                              \
  void measure_##NAME(const T* z, float* mean, float* var, int64_t rows, int64_t channels,         \
                      int threads) {                                                               \
    measure(z, mean, var, Shape{rows, channels, threads});                                         \
  }                                                                                                \
  void normalise_##NAME(const T* z, const float* s, const float* t, const T* skip,                 \
                        const float* s2, const float* t2, T* out, uint16_t* bits, int relu,        \
                        int64_t rows, int64_t channels, int threads) {                             \
    normalise(z, s, t, skip, s2, t2, out, bits, relu != 0, Shape{rows, channels, threads});        \
  }                                                                                                \
  void sums_##NAME(const T* g, const T* more, const T* z, const float* mean, const float* inv,     \
                   const float* s, const float* t, const uint16_t* bits, const T* z2,              \
                   const float* mean2, const float* inv2, T* u, float* dbeta, float* dgamma,       \
                   float* dgamma2, int64_t rows, int64_t channels, int threads) {                  \
    sums(g, more, z, mean, inv, s, t, bits, z2, mean2, inv2, u, dbeta, dgamma, dgamma2,            \
         Shape{rows, channels, threads});                                                          \
  }                                                                                                \
  void input_gradient_##NAME(const T* g, const T* z, const float* mean, const float* inv,          \
                             const float* s, const float* t, const float* k1, const float* k2,     \
                             T* dz, int64_t rows, int64_t channels, int threads) {                 \
    input_gradient(g, z, mean, inv, s, t, k1, k2, dz, Shape{rows, channels, threads});             \
  }

extern "C" {
BOTH(float, fp32)
BOTH(bf16, bf16)
}
