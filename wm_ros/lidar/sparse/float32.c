/* Convolution and its weight gradient in float32: gather, multiply and add in registers, without copies in between.
 *
 * Vectors are those of the compiler (GCC, Clang), so this builds for AVX-512, AVX2 and NEON alike.
 */
#include "kernels.h"
#include <string.h>

#if defined(__AVX512F__)
#define WIDE 16 /* numbers in a register: wider vectors than the CPU has would go through memory */
#elif defined(__AVX__)
#define WIDE 8
#else
#define WIDE 4
#endif
typedef float vector __attribute__((vector_size(4 * WIDE), aligned(4)));
typedef float half __attribute__((vector_size(2 * WIDE), aligned(4)));
#define INLINE static inline __attribute__((always_inline)) void

/* y[out[r], :LANES * V] += x[in[r], :] @ w[:, :LANES * V] for R pairs with different outputs. */
#define BLOCK(NAME, VEC, LANES, R, V)                                                                                  \
    INLINE NAME(const float *x, int64_t cin, const int32_t *in, const int32_t *out, const float *w, int64_t cout,      \
        float *y)                                                                                                      \
    {                                                                                                                  \
        VEC sum[R][V];                                                                                                 \
        const float *row[R];                                                                                           \
        for (int r = 0; r < R; r++) {                                                                                  \
            row[r] = x + in[r] * cin;                                                                                  \
            for (int v = 0; v < V; v++) sum[r][v] = *(const VEC *)(y + out[r] * cout + v * LANES);                     \
        }                                                                                                              \
        for (int64_t c = 0; c < cin; c++) {                                                                            \
            VEC weight[V];                                                                                             \
            for (int v = 0; v < V; v++) weight[v] = *(const VEC *)(w + c * cout + v * LANES);                          \
            for (int r = 0; r < R; r++)                                                                                \
                for (int v = 0; v < V; v++) sum[r][v] += row[r][c] * weight[v];                                        \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int v = 0; v < V; v++) *(VEC *)(y + out[r] * cout + v * LANES) = sum[r][v];                           \
    }

/* R pairs at a time, then what is left one by one; R * V sums and V weights fit in the registers. */
#define STRIP(NAME, VEC, LANES, R, V)                                                                                  \
    BLOCK(NAME##_many, VEC, LANES, R, V)                                                                               \
    BLOCK(NAME##_one, VEC, LANES, 1, V)                                                                                \
    static void NAME(const float *x, int64_t cin, const int32_t *in, const int32_t *out, int64_t pairs, const float *w, \
        int64_t cout, float *y)                                                                                        \
    {                                                                                                                  \
        int64_t p = 0;                                                                                                 \
        for (; p + R <= pairs; p += R) NAME##_many(x, cin, in + p, out + p, w, cout, y);                               \
        for (; p < pairs; p++) NAME##_one(x, cin, in + p, out + p, w, cout, y);                                        \
    }

#if WIDE == 16 /* 32 registers */
STRIP(strip_four, vector, WIDE, 6, 4)
STRIP(strip_two, vector, WIDE, 12, 2)
STRIP(strip_one, vector, WIDE, 14, 1)
#else /* 16 */
STRIP(strip_two, vector, WIDE, 6, 2)
STRIP(strip_one, vector, WIDE, 10, 1)
#endif
STRIP(strip_half, half, WIDE / 2, 8, 1)
STRIP(strip_single, float, 1, 4, 1)

static void multiply(const Convolution *c, const void *weight, const int32_t *in, const int32_t *out, int64_t pairs)
{
    const float *x = c->x, *w = weight;
    int64_t at = 0, n = c->cout;
#if WIDE == 16
    for (; at + 4 * WIDE <= n; at += 4 * WIDE) strip_four(x, c->cin, in, out, pairs, w + at, n, c->y + at);
#endif
    for (; at + 2 * WIDE <= n; at += 2 * WIDE) strip_two(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at + WIDE <= n; at += WIDE) strip_one(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at + WIDE / 2 <= n; at += WIDE / 2) strip_half(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at < n; at++) strip_single(x, c->cin, in, out, pairs, w + at, n, c->y + at);
}

void wm_tiles(const Convolution *c, int64_t weight_bytes, Multiply multiply, int64_t first, int64_t last)
{
    int32_t self[TILE];
    for (int64_t t = first; t < last; t++) {
        int64_t begin = t * TILE, end = begin + TILE < c->sites ? begin + TILE : c->sites;
        memset(c->y + begin * c->cout, 0, (size_t)((end - begin) * c->cout) * sizeof(float));
        for (int64_t k = 0; k < c->places; k++) {
            const char *weight = (const char *)c->w + k * weight_bytes;
            if (k == c->centre) {
                for (int64_t i = begin; i < end; i++) self[i - begin] = (int32_t)i;
                multiply(c, weight, self, self, end - begin);
            } else {
                const int64_t *bound = c->bounds + k * (c->tiles + 1) + t;
                if (bound[1] > bound[0]) multiply(c, weight, c->inputs + bound[0], c->outputs + bound[0], bound[1] - bound[0]);
            }
        }
        if (c->scale)
            for (int64_t i = begin; i < end; i++)
                for (int64_t j = 0; j < c->cout; j++) {
                    float value = c->y[i * c->cout + j] * c->scale[j] + c->shift[j];
                    c->y[i * c->cout + j] = value < 0 ? 0 : value; /* what is not a number stays so */
                }
    }
}

API void wm_convolve(const Convolution *c, int64_t first, int64_t last)
{
    wm_tiles(c, c->cin * c->cout * (int64_t)sizeof(float), multiply, first, last);
}

/* g[r, :LANES * V] += sum over pairs of x[in, r] * y[out, :LANES * V], for R rows r. */
#define OUTER(NAME, VEC, LANES, R, V)                                                                                  \
    INLINE NAME(const float *x, int64_t cin, const float *y, int64_t cout, const int32_t *in, const int32_t *out,      \
        int64_t pairs, float *g)                                                                                       \
    {                                                                                                                  \
        VEC sum[R][V];                                                                                                 \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int v = 0; v < V; v++) sum[r][v] = *(const VEC *)(g + r * cout + v * LANES);                          \
        for (int64_t p = 0; p < pairs; p++) {                                                                          \
            const float *row = x + in[p] * cin;                                                                        \
            for (int v = 0; v < V; v++) {                                                                              \
                VEC other = *(const VEC *)(y + out[p] * cout + v * LANES);                                             \
                for (int r = 0; r < R; r++) sum[r][v] += row[r] * other;                                               \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int v = 0; v < V; v++) *(VEC *)(g + r * cout + v * LANES) = sum[r][v];                                \
    }
#define PANEL(NAME, VEC, LANES, R, V)                                                                                  \
    OUTER(NAME##_many, VEC, LANES, R, V)                                                                               \
    OUTER(NAME##_one, VEC, LANES, 1, V)                                                                                \
    static void NAME(const float *x, int64_t cin, const float *y, int64_t cout, const int32_t *in, const int32_t *out, \
        int64_t pairs, float *g)                                                                                       \
    {                                                                                                                  \
        int64_t c = 0;                                                                                                 \
        for (; c + R <= cin; c += R) NAME##_many(x + c, cin, y, cout, in, out, pairs, g + c * cout);                   \
        for (; c < cin; c++) NAME##_one(x + c, cin, y, cout, in, out, pairs, g + c * cout);                            \
    }

#if WIDE == 16
PANEL(panel_four, vector, WIDE, 4, 4)
PANEL(panel_two, vector, WIDE, 8, 2)
#else
PANEL(panel_two, vector, WIDE, 4, 2)
#endif
PANEL(panel_one, vector, WIDE, 8, 1)
PANEL(panel_half, half, WIDE / 2, 8, 1)
PANEL(panel_single, float, 1, 4, 1)

#define PAIRS 64 /* whose rows stay in the nearest cache while all panels pass over them */

/* g (places, cin, cout): for places first .. last the sum over their pairs of x[in]^T y[out], c->y being a gradient. Tile
 * after tile of outputs, so that the rows which neighbouring places share are still in cache; within a place pairs are
 * added in ascending order, whatever first and last are. */
API void wm_weight_gradient(const Convolution *c, float *gradient, int64_t first, int64_t last)
{
    const float *x = c->x, *y = c->y;
    int64_t cin = c->cin, cout = c->cout;
    int32_t self[PAIRS];
    memset(gradient + first * cin * cout, 0, (size_t)((last - first) * cin * cout) * sizeof(float));
    for (int64_t t = 0; t < c->tiles; t++)
        for (int64_t k = first; k < last; k++) {
            const int64_t *bound = c->bounds + k * (c->tiles + 1) + t;
            int own = k == c->centre;
            int64_t p = own ? t * TILE : bound[0], end = own ? (t + 1 < c->tiles ? p + TILE : c->sites) : bound[1];
            float *g = gradient + k * cin * cout;
            for (; p < end; p += PAIRS) {
                int64_t n = p + PAIRS < end ? PAIRS : end - p, at = 0;
                const int32_t *in = own ? self : c->inputs + p, *out = own ? self : c->outputs + p;
                for (int64_t i = 0; own && i < n; i++) self[i] = (int32_t)(p + i);
#if WIDE == 16
                for (; at + 4 * WIDE <= cout; at += 4 * WIDE) panel_four(x, cin, y + at, cout, in, out, n, g + at);
#endif
                for (; at + 2 * WIDE <= cout; at += 2 * WIDE) panel_two(x, cin, y + at, cout, in, out, n, g + at);
                for (; at + WIDE <= cout; at += WIDE) panel_one(x, cin, y + at, cout, in, out, n, g + at);
                for (; at + WIDE / 2 <= cout; at += WIDE / 2) panel_half(x, cin, y + at, cout, in, out, n, g + at);
                for (; at < cout; at++) panel_single(x, cin, y + at, cout, in, out, n, g + at);
            }
        }
}
