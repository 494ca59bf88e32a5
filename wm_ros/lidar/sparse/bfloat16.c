/* Convolution in bfloat16 with float32 sums, where the CPU has it: AMX tiles, or dot products of AVX-512.
 *
 * Weights are packed in pairs of input channels: (places, cin / 2, cout, 2). cin is even and cout a multiple of 16.
 */
#include "kernels.h"
#include <string.h>

/* to[i] = from[i] rounded to nearest, ties to even; not a number stays that. */
API void wm_round(const float *from, uint16_t *to, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
    }
}

#if defined(__AVX512BF16__) && defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint16_t bf16;

/* Sixteen outputs of R pairs at a time, V strips of 16 columns. */
#define DOT(NAME, R, V)                                                                                                \
    static inline __attribute__((always_inline)) void NAME(const Convolution *c, const bf16 *w, const int32_t *in,     \
        const int32_t *out, int64_t at)                                                                                \
    {                                                                                                                  \
        const bf16 *x = c->x;                                                                                          \
        __m512 sum[R][V];                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int v = 0; v < V; v++) sum[r][v] = _mm512_loadu_ps(c->y + out[r] * c->cout + at + 16 * v);            \
        for (int64_t i = 0; i < c->cin; i += 2) {                                                                      \
            __m512bh weight[V];                                                                                        \
            for (int v = 0; v < V; v++) weight[v] = (__m512bh)_mm512_loadu_si512(w + i * c->cout + 2 * (at + 16 * v)); \
            for (int r = 0; r < R; r++) {                                                                              \
                int32_t two;                                                                                           \
                memcpy(&two, x + in[r] * c->cin + i, 4);                                                               \
                for (int v = 0; v < V; v++)                                                                            \
                    sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)_mm512_set1_epi32(two), weight[v]);              \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int v = 0; v < V; v++) _mm512_storeu_ps(c->y + out[r] * c->cout + at + 16 * v, sum[r][v]);            \
    }

DOT(dot64, 6, 4)
DOT(dot64_one, 1, 4)
DOT(dot16, 8, 1)
DOT(dot16_one, 1, 1)

static void multiply_dot(const Convolution *c, const void *w, const int32_t *in, const int32_t *out, int64_t pairs)
{
    int64_t at = 0;
    for (; at + 64 <= c->cout; at += 64) {
        int64_t p = 0;
        for (; p + 6 <= pairs; p += 6) dot64(c, w, in + p, out + p, at);
        for (; p < pairs; p++) dot64_one(c, w, in + p, out + p, at);
    }
    for (; at < c->cout; at += 16) {
        int64_t p = 0;
        for (; p + 8 <= pairs; p += 8) dot16(c, w, in + p, out + p, at);
        for (; p < pairs; p++) dot16_one(c, w, in + p, out + p, at);
    }
}

#if defined(__AMX_BF16__)
/* Tiles: 0-3 sums of 16 pairs by 16 columns, 4 inputs of 16 pairs by `deep` channels, 5 weights. */
static void configure(int deep)
{
    struct __attribute__((packed)) {
        uint8_t palette, row, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } tiles;
    memset(&tiles, 0, sizeof tiles);
    tiles.palette = 1;
    for (int t = 0; t < 4; t++) tiles.rows[t] = 16, tiles.columns[t] = 64;
    tiles.rows[4] = 16, tiles.columns[4] = (uint16_t)(2 * deep);
    tiles.rows[5] = (uint8_t)(deep / 2), tiles.columns[5] = 64;
    _tile_loadconfig(&tiles);
}

static void multiply_amx(const Convolution *c, const void *weight, const int32_t *in, const int32_t *out, int64_t pairs)
{
    const bf16 *x = c->x, *w = weight;
    int64_t deep = c->cin % 32 ? 16 : 32, cout = c->cout;
    bf16 rows[16 * 128] __attribute__((aligned(64)));
    float sums[16 * 64] __attribute__((aligned(64)));
    for (int64_t p = 0; p < pairs; p += 16) {
        int64_t n = p + 16 < pairs ? 16 : pairs - p;
        for (int64_t r = 0; r < 16; r++) /* beyond the last pair: that one again, its sums are not used */
            memcpy(rows + r * c->cin, x + in[p + (r < n ? r : n - 1)] * c->cin, (size_t)c->cin * 2);
        for (int64_t at = 0; at < cout; at += 64) {
            int64_t strips = cout - at >= 64 ? 4 : (cout - at) / 16;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t i = 0; i < c->cin; i += deep) {
                const bf16 *panel = w + i * cout + 2 * at;
                _tile_loadd(4, rows + i, c->cin * 2);
                _tile_loadd(5, panel, cout * 4);
                _tile_dpbf16ps(0, 4, 5);
                if (strips > 1) { _tile_loadd(5, panel + 32, cout * 4); _tile_dpbf16ps(1, 4, 5); }
                if (strips > 2) { _tile_loadd(5, panel + 64, cout * 4); _tile_dpbf16ps(2, 4, 5); }
                if (strips > 3) { _tile_loadd(5, panel + 96, cout * 4); _tile_dpbf16ps(3, 4, 5); }
            }
            _tile_stored(0, sums, 256);
            if (strips > 1) _tile_stored(1, sums + 16, 256);
            if (strips > 2) _tile_stored(2, sums + 32, 256);
            if (strips > 3) _tile_stored(3, sums + 48, 256);
            for (int64_t r = 0; r < n; r++) {
                float *y = c->y + out[p + r] * cout + at;
                for (int64_t s = 0; s < strips; s++)
                    _mm512_storeu_ps(y + 16 * s, _mm512_add_ps(_mm512_loadu_ps(y + 16 * s), _mm512_load_ps(sums + 64 * r + 16 * s)));
            }
        }
    }
}
#endif

/* 0: none, 1: dot products, 2: AMX, whose use the kernel of the operating system must grant. */
API int32_t wm_bfloat16(void)
{
#if defined(__AMX_BF16__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return 2;
#endif
    return 1;
}

API void wm_convolve_bfloat16(const Convolution *c, int64_t first, int64_t last, int32_t kind)
{
    int64_t bytes = c->cin * c->cout * (int64_t)sizeof(bf16);
#if defined(__AMX_BF16__)
    if (kind == 2 && c->cin % 16 == 0 && c->cin <= 128) {
        configure(c->cin % 32 ? 16 : 32);
        wm_tiles(c, bytes, multiply_amx, first, last);
        _tile_release();
        return;
    }
#endif
    wm_tiles(c, bytes, multiply_dot, first, last);
}
#else
API int32_t wm_bfloat16(void) { return 0; }
API void wm_convolve_bfloat16(const Convolution *c, int64_t first, int64_t last, int32_t kind)
{
    (void)c, (void)first, (void)last, (void)kind;
}
#endif
