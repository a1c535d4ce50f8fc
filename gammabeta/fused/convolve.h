// Direct convolution of one staged image, and Winograd's, on a CPU.
//
// A staged image is (H + 2, W + 2, C): framed by one pixel of zeros, small enough for the cache.
// Sixteen output channels, or 32, of neighbouring pixels are summed in registers over all taps and
// input channels. The gradient at a convolution's input is the same walk over the gradient at its output,
// with the taps mirrored; at stride 2 each phase of its pixels (row and column even or odd) meets taps
// of its own.

#pragma once

#include "lanes.h"

namespace {

// What is multiplied: pairs of bf16 where the processor has an instruction for them, else fp32.
template <class T> struct Of { typedef float Element; };
#ifdef __AVX512BF16__
template <> struct Of<bf16> { typedef bf16 Element; };
#endif

// Output pixels and vectors of output channels whose sums are in registers at once.
#ifdef __AVX512F__
constexpr int PIXELS = 8, MOST = 2;
#else
constexpr int PIXELS = 4, MOST = 1;
#endif

inline int vectors(int64_t outputs) { return outputs % (MOST * LANES) ? 1 : MOST; }

// Some taps over one staged image: offsets, in elements, from the place of the first output pixel.
template <class E> struct Taps {
  const E* in = nullptr;
  const E* weight = nullptr;  // (count, channels, N vectors); bf16 has channels in pairs, side by side
  int count = 0;
  int32_t at[9];
};

// A vector as wide as a register: of a wider one the compiler keeps the sums in memory.
#if defined(__AVX512F__)
constexpr int WIDE = 16;
#elif defined(__AVX__)
constexpr int WIDE = 8;
#else
constexpr int WIDE = 4;
#endif
typedef float W __attribute__((vector_size(4 * WIDE)));

inline W load_wide(const float* p) { W w; std::memcpy(&w, p, sizeof w); return w; }
inline void store_wide(float* p, W w) { std::memcpy(p, &w, sizeof w); }

inline W spread(float x) {
#if defined(__AVX512F__)
  return W{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif defined(__AVX__)
  return W{x, x, x, x, x, x, x, x};
#else
  return W{x, x, x, x};
#endif
}

template <int N> using Sums = W[PIXELS][N * LANES / WIDE];

template <int N, int STEP>
inline void accumulate(const Taps<float>& taps, int channels, int step, Sums<N>& sum) {
  const float* w = taps.weight;
  for (int t = 0; t < taps.count; t++) {
    const float* x = taps.in + taps.at[t];
    for (int c = 0; c < channels; c++, w += N * LANES)
#pragma GCC unroll 8
      for (int p = 0; p < PIXELS; p++) {
        const W value = spread(x[p * (STEP ? STEP : step) + c]);
        for (int v = 0; v < N * LANES / WIDE; v++) sum[p][v] += value * load_wide(w + v * WIDE);
      }
  }
}

#ifdef __AVX512BF16__
template <int N, int STEP>
inline void accumulate(const Taps<bf16>& taps, int channels, int step, Sums<N>& sum) {
  const bf16* w = taps.weight;
  for (int t = 0; t < taps.count; t++) {
    const bf16* x = taps.in + taps.at[t];
    for (int c = 0; c < channels; c += 2, w += N * 2 * LANES) {
      __m512bh weights[N];
      for (int v = 0; v < N; v++) std::memcpy(&weights[v], w + v * 2 * LANES, sizeof weights[v]);
#pragma GCC unroll 8
      for (int p = 0; p < PIXELS; p++) {
        int32_t pair;
        std::memcpy(&pair, x + p * (STEP ? STEP : step) + c, sizeof pair);
        const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
        for (int v = 0; v < N; v++)
          sum[p][v] = (W)_mm512_dpbf16_ps((__m512)sum[p][v], value, weights[v]);
      }
    }
  }
}
#endif

// The sums of PIXELS x N vectors, over one or two sets of taps, to `out`. step: staged elements from
// one output pixel's place to the next, a constant where it is usual, so that addresses cost nothing.
template <class E, int N, int STEP>
void tile(const Taps<E>* taps, int sets, int channels, int step, float* out) {
  constexpr int parts = N * LANES / WIDE;
  Sums<N> sum;
  for (int p = 0; p < PIXELS; p++)
    for (int v = 0; v < parts; v++) sum[p][v] = W{};
  for (int k = 0; k < sets; k++) accumulate<N, STEP>(taps[k], channels, step, sum);
  for (int p = 0; p < PIXELS; p++)
    for (int v = 0; v < parts; v++) store_wide(out + (p * parts + v) * WIDE, sum[p][v]);
}

template <class E> using Tile = void (*)(const Taps<E>*, int, int, int, float*);

template <class E, int N> Tile<E> tile_of(int64_t step) {
  switch (step) {
    case 4: return tile<E, N, 4>;
    case 16: return tile<E, N, 16>;
    case 32: return tile<E, N, 32>;
    case 64: return tile<E, N, 64>;
    default: return tile<E, N, 0>;
  }
}

// body(N): how many vectors of output channels are summed at once, as a constant.
template <class Body> void with_vectors(int64_t outputs, Body body) {
  if (vectors(outputs) == 1) body(std::integral_constant<int, 1>{});
  else body(std::integral_constant<int, MOST>{});
}

// Winograd's F(2 x 2, 3 x 3) (Lavin and Gray 2016, section 4.1): a tile of 2 x 2 outputs is
// A^T ((G g G^T) (B^T d B)) A of its 4 x 4 inputs d, with 16 products a channel where direct
// convolution has 36. Rows and columns of a matrix go through the same few sums.
template <class X> inline void transform_row(const X (&d)[4], X (&to)[4]) {
  to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
}

inline void transform_weight(const double (&g)[9], double (&to)[16]) {
  double half[4][3];
  auto three = [](double a, double b, double c, int k) {
    return k == 0 ? a : k == 1 ? (a + b + c) / 2 : k == 2 ? (a - b + c) / 2 : c;
  };
  for (int i = 0; i < 4; i++)
    for (int x = 0; x < 3; x++) half[i][x] = three(g[x], g[3 + x], g[6 + x], i);
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) to[i * 4 + j] = three(half[i][0], half[i][1], half[i][2], j);
}

// A convolution of k x k taps, padding k / 2. Its output's pixel y meets the input's pixels
// y stride + tap - padding. Backward, the input's pixel y, of phase p = y % stride, meets the output's
// pixels y / stride + (p + padding - tap) / stride, where that is whole.
struct Kernel {
  int64_t size, outputs, inputs, stride, taps;  // size: of its output
  bool back;

  int64_t phases() const { return back ? stride * stride : 1; }
  int64_t channels_out() const { return back ? inputs : outputs; }
  int64_t channels_in() const { return back ? outputs : inputs; }
  int64_t wide() const { return (channels_in() + 3) / 4 * 4; }  // as staged
  int64_t pitch() const { return (back ? size : size * stride) + 2; }
  int64_t staged() const { return pitch() * pitch() * wide(); }
  int64_t groups() const { return channels_out() / (LANES * vectors(channels_out())); }

  // Whether PIXELS outputs of 2 x 2 pixels are made at once (below): where fp32 is multiplied, for
  // in bf16 the values in between would lose too much.
  template <class E> bool winograd() const {
    const int64_t row = size / 2;
    return std::is_same_v<E, float> && taps == 3 && stride == 1 && channels_in() % LANES == 0 &&
           size % 2 == 0 && (row % PIXELS == 0 || PIXELS % row == 0) && row * row % PIXELS == 0;
  }
  template <class E> int64_t transformed() const {  // values; those of one tile where one is enough
    if (!winograd<E>()) return 0;
    return (groups() == 1 ? PIXELS * 4 : size * size) * 4 * wide();
  }
  template <class E> int64_t weights() const {
    return (winograd<E>() ? 16 : taps * taps) * wide() * channels_out();
  }

  // body(place among the weights, row of the tap, column, offset in the frame) for what a phase meets,
  // in the order in which the weights lie.
  template <class Body> void each_tap(int64_t phase, Body body) const {
    int64_t place = 0;
    for (int64_t f = 0; f <= phase; f++)
      for (int64_t y = 0; y < taps; y++)
        for (int64_t x = 0; x < taps; x++) {
          int64_t down = y - taps / 2, right = x - taps / 2;
          if (back) {
            down = f / stride - down, right = f % stride - right;
            if (down % stride || right % stride) continue;
            down /= stride, right /= stride;
          }
          if (f == phase) body(place, y, x, ((down + 1) * pitch() + right + 1) * wide());
          place++;
        }
  }

  template <class E> Taps<E> of(int64_t phase, int64_t group, const E* weight) const {
    const int64_t block = wide() * LANES * vectors(channels_out());
    Taps<E> made;
    made.weight = weight + group * taps * taps * block;
    each_tap(phase, [&](int64_t place, int64_t, int64_t, int64_t offset) {
      if (!made.count) made.weight += place * block;
      made.at[made.count++] = (int32_t)offset;
    });
    return made;
  }

  // body(channel in, lane of the group, the taps of that pair of channels)
  template <class Body> void each_pair(int64_t group, const float* weight, Body body) const {
    const int64_t lanes = LANES * vectors(channels_out());
    for (int64_t c = 0; c < channels_in(); c++)
      for (int64_t lane = 0; lane < lanes; lane++) {
        const int64_t there = group * lanes + lane, o = back ? c : there, i = back ? there : c;
        body(c, lane, weight + (o * inputs + i) * taps * taps);
      }
  }

  // From (outputs, inputs, taps, taps), whose values E can hold, to the order in which tiles read.
  template <class E> void pack(const float* from, E* to) const {
    const int64_t pair = sizeof(E) == 2 ? 2 : 1, lanes = LANES * vectors(channels_out());
    const int64_t block = wide() * lanes;
    std::memset(to, 0, weights<E>() * sizeof(E));
    for (int64_t group = 0; group < groups(); group++) {
      if (winograd<E>()) {
        each_pair(group, from, [&](int64_t c, int64_t lane, const float* g) {
          double turned[9], made[16];
          for (int k = 0; k < 9; k++) turned[k] = g[back ? 8 - k : k];
          transform_weight(turned, made);
          for (int k = 0; k < 16; k++)
            put(to + (group * 16 + k) * block + c * lanes + lane, (float)made[k]);
        });
        continue;
      }
      for (int64_t phase = 0; phase < phases(); phase++)
        each_tap(phase, [&](int64_t place, int64_t y, int64_t x, int64_t) {
          E* at = to + (group * taps * taps + place) * block;
          each_pair(group, from, [&](int64_t c, int64_t lane, const float* g) {
            put(at + (c / pair * lanes + lane) * pair + c % pair, g[y * taps + x]);
          });
        });
    }
  }

  static void put(float* to, float x) { *to = x; }
  static void put(bf16* to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to->bits = (uint16_t)(bits >> 16);
  }
};

// The walk over one image's output. sink(y, x, out) gets PIXELS x N vectors: pixels side by side (of
// one phase, `stride` apart) from (y, x) on. A set of taps is added to the first where the phase has it.
template <int N, class E, class Sink>
void convolve(const Kernel& k, int64_t group, const E* frame, const E* weight, Sink sink,
              const Kernel* side = nullptr, const E* side_frame = nullptr,
              const E* side_weight = nullptr) {
  const int64_t apart = k.back ? k.stride : 1, step = k.back ? k.wide() : k.stride * k.wide();
  const int64_t down = (k.back ? 1 : k.stride) * k.pitch() * k.wide();
  const Tile<E> run = tile_of<E, N>(step);
  alignas(64) float out[PIXELS * N * LANES];
  for (int64_t phase = 0; phase < k.phases(); phase++) {
    Taps<E> taps[2] = {k.of(phase, group, weight), {}};
    if (side) taps[1] = side->of(phase, group, side_weight);
    for (int64_t i = 0; i < k.size; i++)
      for (int64_t j = 0; j < k.size; j += PIXELS) {
        taps[0].in = frame + i * down + j * step;
        taps[1].in = side_frame + i * down + j * step;
        run(taps, taps[1].count ? 2 : 1, (int)k.wide(), (int)step, out);
        sink(i * apart + phase / k.stride, j * apart + phase % k.stride, out);
      }
  }
}

// The same by Winograd's tiles, PIXELS of them at once: their inputs, transformed, are 16 small images
// that each meet one weight a pair of channels.
template <int N, class Sink>
void convolve_by_tiles(const Kernel& k, int64_t group, const float* frame, const float* weight,
                       float* inputs, Sink sink) {
  const int64_t C = k.wide(), row = k.size / 2, across = row < PIXELS ? row : PIXELS;
  const Tile<float> run = tile_of<float, N>(C);
  alignas(64) float products[16][PIXELS * N * LANES];
  alignas(64) float out[4 * PIXELS * N * LANES];  // rows of 2 x across pixels
  for (int64_t first = 0; first < row * row; first += PIXELS) {
    float* image = inputs + (k.groups() == 1 ? 0 : first * 16 * C);
    if (group == 0)  // kept for the other groups
      for (int p = 0; p < PIXELS; p++) {
        const int64_t y = (first + p) / row * 2, x = (first + p) % row * 2;
        for (int64_t c = 0; c < C; c += WIDE) {
          W half[4][4], column[4], d[4];
          for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++)
              d[j] = load_wide(frame + ((y + i) * k.pitch() + x + j) * C + c);
            transform_row(d, half[i]);
          }
          for (int j = 0; j < 4; j++) {
            for (int i = 0; i < 4; i++) d[i] = half[i][j];
            transform_row(d, column);
            for (int i = 0; i < 4; i++)
              store_wide(image + ((i * 4 + j) * PIXELS + p) * C + c, column[i]);
          }
        }
      }
    for (int at = 0; at < 16; at++) {
      Taps<float> taps;
      taps.count = 1, taps.at[0] = 0, taps.in = image + at * PIXELS * C;
      taps.weight = weight + (group * 16 + at) * C * N * LANES;
      run(&taps, 1, (int)C, (int)C, products[at]);
    }
    constexpr int parts = N * LANES / WIDE;
    for (int p = 0; p < PIXELS; p++)
      for (int v = 0; v < parts; v++) {
        W half[2][4];
        for (int j = 0; j < 4; j++) {
          W m[4];
          for (int i = 0; i < 4; i++) m[i] = load_wide(products[i * 4 + j] + (p * parts + v) * WIDE);
          half[0][j] = m[0] + m[1] + m[2], half[1][j] = m[1] - m[2] - m[3];
        }
        for (int i = 0; i < 2; i++) {
          float* to = out + (((p / across * 2 + i) * across + p % across) * 2 * parts + v) * WIDE;
          store_wide(to, half[i][0] + half[i][1] + half[i][2]);
          store_wide(to + N * LANES, half[i][1] - half[i][2] - half[i][3]);
        }
      }
    for (int64_t from = 0; from < 4 * PIXELS; from += PIXELS)
      sink(first / row * 2 + from / (2 * across), first % row * 2 + from % (2 * across),
           out + from * N * LANES);
  }
}

template <int N, class E, class Sink>
void convolve_best(const Kernel& k, int64_t group, const E* frame, const E* weight, float* inputs,
                   Sink sink) {
  if constexpr (std::is_same_v<E, float>)
    if (k.winograd<float>()) return convolve_by_tiles<N>(k, group, frame, weight, inputs, sink);
  convolve<N>(k, group, frame, weight, sink);
}

}  // namespace
