// The fused program's convolutions on a CPU: each call reads every tensor once, makes what the
// convolution needs of it on the way in, and the sums of what it writes on the way out.
//
// Images are (N, H, W, C), contiguous, C a multiple of 16 (the network's input excepted), fp32 or
// bf16. One image at a time is staged: normalised, or turned into dz. Sums are made image by image and
// merged in order, so the number of threads changes nothing. program.py is the slow twin. Memory that
// cannot be had ends the process: no exception leaves a parallel region.

#include "convolve.h"

// What Python fills in: direct.py has the same fields in the same order. Null: there is none.
extern "C" {

struct Convolution {
  int64_t images, size, outputs, inputs, stride, taps;
};

// A BatchNorm's channels in the program's flat buffers.
struct Norm {
  const float *gamma, *beta;
  float *mean, *inv, *scale, *shift, *running_mean, *running_var, *dgamma, *dbeta;
  double eps, momentum;
};

// z = W * x and its statistics, where x is the input as it is, or relu(norm(input) (+ skip, or
// + skip_norm(skip))).
struct Forward {
  Convolution layer;
  const void *input, *weight;
  const Norm* norm;
  const void* skip;
  const Norm* skip_norm;
  void* a;         // x, where it is wanted
  uint16_t* bits;  // [x > 0], one a value
  void* z;
  const Norm* own;    // in training: where the statistics of z belong
  int64_t side_taps;  // a second convolution of the same x, of the same stride and channels
  const void* side_weight;
  void* side;
  const Norm* side_own;
};

// dz = scale (u - dbeta / n - x_hat dgamma / n), x_hat = (z - mean) inv
struct Gradient {
  const void *u, *z, *weight;
  const Norm* norm;
};

// out = (W^T * dz (+ the side's) (+ more)) where the ReLU below is open: by bits, else where
// norm(z) > 0. Its sums, dbeta = sum out and dgamma = sum out x_hat, go to the norms below.
struct Backward {
  Convolution layer;
  Gradient main, side;
  int64_t side_taps;
  const void* more;
  const uint16_t* bits;
  const void* z;
  const Norm* norm;
  const void* z2;
  const Norm* norm2;
  void* out;
};
}

namespace {

inline Kernel kernel(const Convolution& layer, bool back, int64_t taps) {
  return Kernel{layer.size, layer.outputs, layer.inputs, layer.stride, taps, back};
}

// Into the frame, rounded to what memory would hold.
template <class T, class E> inline void stage(E* to, V y) {
  if constexpr (std::is_same_v<T, E>) store(to, y);
  else {
    T rounded[LANES];
    store(rounded, y);
    store(to, load(rounded));
  }
}

inline void copy(float* to, float x) { *to = x; }
inline void copy(bf16* to, bf16 x) { *to = x; }
inline void copy(float* to, bf16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  std::memcpy(to, &bits, sizeof bits);
}

// Fills the frame with value(place in the image, vector in the pixel), of size x size pixels.
template <class T, class E, class Width, class Value>
void fill(E* frame, int64_t pitch, int64_t size, Width vectors, Value value) {
  const int width = vectors;
  for (int64_t y = 0; y < size; y++) {
    E* to = frame + ((y + 1) * pitch + 1) * width * LANES;
    for (int64_t x = 0; x < size; x++)
      for (int v = 0; v < width; v++, to += LANES)
        stage<T>(to, value(((y * size + x) * width + v) * LANES, v));
  }
}

// One image of a convolution's input, into the frame.
template <class T, class E>
void stage_input(const Forward& f, const Kernel& k, int64_t n, E* frame) {
  const int64_t size = k.size * k.stride, C = k.inputs, first = n * size * size * C;
  const T *input = (const T*)f.input + first, *skip = f.skip ? (const T*)f.skip + first : nullptr;
  if (!f.norm) {
    for (int64_t y = 0; y < size; y++)
      for (int64_t x = 0; x < size; x++)
        for (int64_t c = 0; c < C; c++)
          copy(frame + ((y + 1) * k.pitch() + x + 1) * k.wide() + c, input[(y * size + x) * C + c]);
    return;
  }
  T* a = f.a ? (T*)f.a + first : nullptr;
  uint16_t* bits = f.bits ? f.bits + first / LANES : nullptr;
  with_width(C, [&](auto vectors) {
    const int width = vectors;
    V scale[MOST_WIDE], shift[MOST_WIDE], scale2[MOST_WIDE], shift2[MOST_WIDE];
    for (int v = 0; v < width; v++) {
      scale[v] = load(f.norm->scale + v * LANES), shift[v] = load(f.norm->shift + v * LANES);
      if (!f.skip_norm) continue;
      scale2[v] = load(f.skip_norm->scale + v * LANES);
      shift2[v] = load(f.skip_norm->shift + v * LANES);
    }
    auto put = [&](auto join) {
      fill<T>(frame, k.pitch(), size, vectors, [&](int64_t at, int v) {
        V x = join(load(input + at) * scale[v] + shift[v], at, v);
        x = x < 0 ? V{} : x;  // NaN stays NaN
        if (a) store(a + at, x);
        if (bits) {  // of what is stored
          T stored[LANES];
          store(stored, x);
          bits[at / LANES] = bits_of(load(stored) > 0);
        }
        return x;
      });
    };
    if (f.skip_norm)
      put([&](V y, int64_t at, int v) { return y + (load(skip + at) * scale2[v] + shift2[v]); });
    else if (skip) put([&](V y, int64_t at, int) { return y + load(skip + at); });
    else put([](V y, int64_t, int) { return y; });
  });
}

// One image of dz, into the frame.
template <class T, class E>
void stage_gradient(const Gradient& g, const Kernel& k, int64_t images, int64_t n, E* frame) {
  const int64_t size = k.size, C = k.outputs, first = n * size * size * C;
  const T *u = (const T*)g.u + first, *z = (const T*)g.z + first;
  const V share = all(1.0f / (float)(images * size * size));
  with_width(C, [&](auto vectors) {
    const int width = vectors;
    V scale[MOST_WIDE], mean[MOST_WIDE], shift[MOST_WIDE], slope[MOST_WIDE];
    for (int v = 0; v < width; v++) {
      scale[v] = load(g.norm->scale + v * LANES), mean[v] = load(g.norm->mean + v * LANES);
      shift[v] = -scale[v] * load(g.norm->dbeta + v * LANES) * share;
      slope[v] = -scale[v] * load(g.norm->inv + v * LANES) * load(g.norm->dgamma + v * LANES) * share;
    }
    fill<T>(frame, k.pitch(), size, vectors, [&](int64_t at, int v) {
      return scale[v] * load(u + at) + (shift[v] + (load(z + at) - mean[v]) * slope[v]);
    });
  });
}

// Over the pixels of a tile, in a fixed order.
inline V sum_of(const V (&x)[PIXELS]) {
  V half[PIXELS / 2];
  for (int p = 0; p < PIXELS / 2; p++) half[p] = x[p] + x[p + PIXELS / 2];
  V sum = half[0];
  for (int p = 1; p < PIXELS / 2; p++) sum += half[p];
  return sum;
}

template <class T> inline V stored(T* to, V x) {
  store(to, x);
  return load(to);
}

// One image's output, and its mean and sum of squares around it, summed around its first pixel.
template <int N, class T, class E>
void write_output(const Kernel& k, int64_t n, const E* frame, const E* weight, float* inputs, T* z,
                  float* partial) {
  for (int64_t group = 0; group < k.groups(); group++) {
    V centre[N], sum[N], squares[N];
    for (int v = 0; v < N; v++) centre[v] = sum[v] = squares[v] = V{};
    convolve_best<N>(k, group, frame, weight, inputs, [&](int64_t y, int64_t x, const float* out) {
      for (int v = 0; v < N; v++) {
        T* to = z + ((n * k.size + y) * k.size + x) * k.outputs + (group * N + v) * LANES;
        V d[PIXELS], square[PIXELS];
        for (int p = 0; p < PIXELS; p++)
          d[p] = stored(to + p * k.outputs, load(out + (p * N + v) * LANES));
        if (x + y == 0) centre[v] = d[0];
        for (int p = 0; p < PIXELS; p++) d[p] -= centre[v], square[p] = d[p] * d[p];
        sum[v] += sum_of(d);
        squares[v] += sum_of(square);
      }
    });
    for (int v = 0; partial && v < N; v++) {
      const V shift = sum[v] / all((float)(k.size * k.size));
      float* to = partial + 2 * n * k.outputs + (group * N + v) * LANES;
      store(to, centre[v] + shift);
      store(to + k.outputs, squares[v] - sum[v] * shift);
    }
  }
}

// Statistics of a layer's output, to what BatchNorm needs of them, and into the running ones.
inline void settle(const std::vector<float>& partial, const Convolution& layer, const Norm& norm) {
  const int64_t C = layer.outputs, pixels = layer.size * layer.size;
  const double n = (double)(layer.images * pixels);
  std::vector<float> var(C);
  merge(partial.data(), layer.images, C, [&](int64_t) { return pixels; }, norm.mean, var.data());
  for (int64_t c = 0; c < C; c++) {
    norm.inv[c] = (float)(1 / std::sqrt((double)var[c] + norm.eps));
    norm.scale[c] = norm.gamma[c] * norm.inv[c];
    norm.shift[c] = norm.beta[c] - norm.mean[c] * norm.scale[c];
    const double unbiased = var[c] * (n / (n > 1 ? n - 1 : 1));
    norm.running_mean[c] += (float)(norm.momentum * (norm.mean[c] - norm.running_mean[c]));
    norm.running_var[c] += (float)(norm.momentum * (unbiased - norm.running_var[c]));
  }
}

template <class T> void forward(const Forward& f, int threads) {
  typedef typename Of<T>::Element E;
  const Kernel own = kernel(f.layer, false, f.layer.taps);
  const Kernel side = kernel(f.layer, false, f.side_taps);
  const int64_t images = f.layer.images, C = f.layer.outputs;
  std::vector<float> sums(f.own ? images * 2 * C : 0), side_sums(f.side_own ? images * 2 * C : 0);
#pragma omp parallel num_threads(threads)
  {
    std::vector<E> frame(own.staged());
    std::vector<float> inputs(own.transformed<E>());
#pragma omp for schedule(static)
    for (int64_t n = 0; n < images; n++) {
      stage_input<T>(f, own, n, frame.data());
      with_vectors(C, [&](auto N) {
        write_output<N>(own, n, frame.data(), (const E*)f.weight, inputs.data(), (T*)f.z,
                        f.own ? sums.data() : nullptr);
        if (f.side)
          write_output<N>(side, n, frame.data(), (const E*)f.side_weight, inputs.data(), (T*)f.side,
                          f.side_own ? side_sums.data() : nullptr);
      });
    }
  }
  if (f.own) settle(sums, f.layer, *f.own);
  if (f.side_own) settle(side_sums, f.layer, *f.side_own);
}

// One image's gradient at the input, masked, and its sums.
template <int N, class T, class E>
void write_gradient(const Backward& b, const Kernel& k, const Kernel& side, int64_t n,
                    const E* frame, const E* side_frame, float* inputs, float* partial) {
  const int64_t C = k.inputs, size = k.size * k.stride, next = k.stride * C;  // pixel of a tile
  const T *more = (const T*)b.more, *z = (const T*)b.z, *z2 = (const T*)b.z2;
  T* result = (T*)b.out;
  for (int64_t group = 0; group < k.groups(); group++) {
    V sum[N], sum_z[N], sum_z2[N], mean[N], mean2[N], scale[N], shift[N];
    for (int v = 0; v < N; v++) {
      const int64_t c = (group * N + v) * LANES;
      sum[v] = sum_z[v] = sum_z2[v] = V{};
      mean[v] = load(b.norm->mean + c), mean2[v] = z2 ? load(b.norm2->mean + c) : V{};
      scale[v] = load(b.norm->scale + c), shift[v] = load(b.norm->shift + c);
    }
    auto sink = [&](int64_t y, int64_t x, const float* out) {
      for (int v = 0; v < N; v++) {
        const int64_t at = ((n * size + y) * size + x) * C + (group * N + v) * LANES;
        V u[PIXELS];
        for (int p = 0; p < PIXELS; p++) u[p] = load(out + (p * N + v) * LANES);
        if (more)
          for (int p = 0; p < PIXELS; p++) u[p] += load(more + at + p * next);
        if (b.bits)
          for (int p = 0; p < PIXELS; p++) u[p] = where(b.bits[(at + p * next) / LANES], u[p]);
        else
          for (int p = 0; p < PIXELS; p++)
            u[p] = where(load(z + at + p * next) * scale[v] + shift[v] > 0, u[p]);
        for (int p = 0; p < PIXELS; p++) u[p] = stored(result + at + p * next, u[p]);
        sum[v] += sum_of(u);
        auto with = [&](const T* z, V mean) {
          V product[PIXELS];
          for (int p = 0; p < PIXELS; p++) product[p] = u[p] * (load(z + at + p * next) - mean);
          return sum_of(product);
        };
        sum_z[v] += with(z, mean[v]);
        if (z2) sum_z2[v] += with(z2, mean2[v]);
      }
    };
    const E* weight = (const E*)b.main.weight;
    if (side_frame)
      convolve<N>(k, group, frame, weight, sink, &side, side_frame, (const E*)b.side.weight);
    else
      convolve_best<N>(k, group, frame, weight, inputs, sink);
    for (int v = 0; v < N; v++) {
      const int64_t c = (group * N + v) * LANES;
      float* to = partial + 3 * n * C + c;
      store(to, sum[v]);
      store(to + C, sum_z[v] * load(b.norm->inv + c));
      if (z2) store(to + 2 * C, sum_z2[v] * load(b.norm2->inv + c));
    }
  }
}

template <class T> void backward(const Backward& b, int threads) {
  typedef typename Of<T>::Element E;
  const Kernel own = kernel(b.layer, true, b.layer.taps), side = kernel(b.layer, true, b.side_taps);
  const int64_t images = b.layer.images, C = b.layer.inputs;
  std::vector<float> sums(images * 3 * C);
#pragma omp parallel num_threads(threads)
  {
    std::vector<E> frame(own.staged()), side_frame(b.side.u ? side.staged() : 0);
    std::vector<float> inputs(own.transformed<E>());
    E* beside = b.side.u ? side_frame.data() : nullptr;
#pragma omp for schedule(static)
    for (int64_t n = 0; n < images; n++) {
      stage_gradient<T>(b.main, own, images, n, frame.data());
      if (beside) stage_gradient<T>(b.side, side, images, n, beside);
      with_vectors(C, [&](auto N) {
        write_gradient<N, T>(b, own, side, n, frame.data(), beside, inputs.data(), sums.data());
      });
    }
  }
  add_up(sums.data(), images, C, b.norm->dbeta, b.norm->dgamma, b.norm2 ? b.norm2->dgamma : nullptr);
  if (b.norm2) std::memcpy(b.norm2->dbeta, b.norm->dbeta, C * sizeof(float));
}

}  // namespace

#define BOTH(T, NAME)                                                                              \
  int64_t packed_bytes_##NAME(const Convolution* layer, int back) {                                \
    typedef Of<T>::Element E;                                                                      \
    return kernel(*layer, back, layer->taps).weights<E>() * (int64_t)sizeof(E);                    \
  }                                                                                                \
  void pack_##NAME(const Convolution* layer, int back, const float* from, void* to) {              \
    kernel(*layer, back, layer->taps).pack(from, (Of<T>::Element*)to);                             \
  }                                                                                                \
  void forward_##NAME(const Forward* f, int threads) { forward<T>(*f, threads); }                  \
  void backward_##NAME(const Backward* b, int threads) { backward<T>(*b, threads); }

extern "C" {
BOTH(float, fp32)
BOTH(bf16, bf16)
int pixels() { return PIXELS; }
}
