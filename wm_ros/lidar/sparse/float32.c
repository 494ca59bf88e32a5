/* Convolution and its weight gradient in float32: gather, multiply and add in registers, without copies in between.
 *
 * Vectors are those of the compiler (GCC, Clang), so this builds for AVX-512, AVX2 and NEON alike.
 */
#include "kernels.h"
#include <string.h>

typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef float v8 __attribute__((vector_size(32), aligned(4)));
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

STRIP(strip64, v16, 16, 6, 4)
STRIP(strip32, v16, 16, 12, 2)
STRIP(strip16, v16, 16, 14, 1)
STRIP(strip8, v8, 8, 8, 1)
STRIP(strip1, float, 1, 4, 1)

static void multiply(const Convolution *c, const void *weight, const int32_t *in, const int32_t *out, int64_t pairs)
{
    const float *x = c->x, *w = weight;
    int64_t at = 0, n = c->cout;
    for (; at + 64 <= n; at += 64) strip64(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at + 32 <= n; at += 32) strip32(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at + 16 <= n; at += 16) strip16(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at + 8 <= n; at += 8) strip8(x, c->cin, in, out, pairs, w + at, n, c->y + at);
    for (; at < n; at++) strip1(x, c->cin, in, out, pairs, w + at, n, c->y + at);
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

PANEL(panel64, v16, 16, 4, 4)
PANEL(panel32, v16, 16, 8, 2)
PANEL(panel16, v16, 16, 8, 1)
PANEL(panel8, v8, 8, 8, 1)
PANEL(panel1, float, 1, 4, 1)

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
                for (; at + 64 <= cout; at += 64) panel64(x, cin, y + at, cout, in, out, n, g + at);
                for (; at + 32 <= cout; at += 32) panel32(x, cin, y + at, cout, in, out, n, g + at);
                for (; at + 16 <= cout; at += 16) panel16(x, cin, y + at, cout, in, out, n, g + at);
                for (; at + 8 <= cout; at += 8) panel8(x, cin, y + at, cout, in, out, n, g + at);
                for (; at < cout; at++) panel1(x, cin, y + at, cout, in, out, n, g + at);
            }
        }
}
