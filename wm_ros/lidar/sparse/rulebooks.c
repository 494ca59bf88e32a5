/* Which input site meets which output site, for each place of a kernel.
 *
 * Pairs are listed place by place, ascending in the input and in the output alike: sites ascend in (batch, z, y, x),
 * and a fixed place moves them all by the same step.
 */
#include "kernels.h"
#include <stdlib.h>
#include <string.h>

/* Inputs at key + shift, + 1 and + 2 of every site: one merge of the ascending list with itself finds all three. */
static void merge(const int64_t *keys, int64_t n, int64_t shift, int32_t *inputs, int32_t *outputs, int64_t *count)
{
    int32_t *in[3] = {inputs, inputs + n, inputs + 2 * n}, *out[3] = {outputs, outputs + n, outputs + 2 * n};
    int64_t found[3] = {0, 0, 0};
    for (int64_t i = 0, j = 0; i < n; i++) {
        int64_t wanted = keys[i] + shift;
        while (keys[j] < wanted) j++;
        for (int64_t d = 0, p = j; d < 3; d++) {
            int64_t hit = keys[p] == wanted + d;
            in[d][found[d]] = (int32_t)p;
            out[d][found[d]] = (int32_t)i;
            found[d] += hit;
            p += hit;
        }
    }
    memcpy(count, found, sizeof found);
}

/* Submanifold 3 x 3 x 3. sites (n, 4): batch, z, y, x, ascending; shape: of the grid along z, y, x. inputs, outputs
 * have room for 26 n pairs; starts (28): where places begin. The centre, place 13, has no pairs: there every site meets
 * itself. Returns -1 where memory is short. */
API int32_t wm_submanifold(const int64_t *sites, int64_t n, const int32_t *shape, int32_t *inputs, int32_t *outputs,
    int64_t *starts)
{
    int64_t depth = shape[0] + 2, height = shape[1] + 2, width = shape[2] + 2; /* a margin: neighbours do not wrap */
    int64_t *keys = malloc(((size_t)n + 1) * sizeof(int64_t)), count[13], at = 0;
    if (!keys) return -1;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *s = sites + 4 * i;
        keys[i] = ((s[0] * depth + s[1] + 1) * height + s[2] + 1) * width + s[3] + 1;
    }
    keys[n] = INT64_MAX;
    const int64_t rows[4] = {-height - 1, -height, -height + 1, -1}; /* (dz, dy) of the kernel's rows before its own */
    for (int r = 0; r < 4; r++) merge(keys, n, rows[r] * width - 1, inputs + 3 * r * n, outputs + 3 * r * n, count + 3 * r);
    count[12] = 0;
    for (int64_t i = 1; i < n; i++) {
        inputs[12 * n + count[12]] = (int32_t)(i - 1);
        outputs[12 * n + count[12]] = (int32_t)i;
        count[12] += keys[i - 1] == keys[i] - 1;
    }
    free(keys);
    for (int k = 0; k < 13; k++) {
        memmove(inputs + at, inputs + k * n, (size_t)count[k] * sizeof(int32_t));
        memmove(outputs + at, outputs + k * n, (size_t)count[k] * sizeof(int32_t));
        starts[k] = at;
        at += count[k];
    }
    starts[13] = at;
    for (int k = 14; k < 27; k++) { /* the mirror image of place 26 - k */
        size_t bytes = (size_t)count[26 - k] * sizeof(int32_t);
        starts[k] = at;
        memcpy(inputs + at, outputs + starts[26 - k], bytes);
        memcpy(outputs + at, inputs + starts[26 - k], bytes);
        at += count[26 - k];
    }
    starts[27] = at;
    return 0;
}

#define MOST 32 /* places along one axis; the caller refuses larger kernels */

/* Along one axis: the places at which a site is met, and the coordinates of the outputs there. Returns how many. */
static inline int along(int64_t site, int32_t kernel, int32_t stride, int32_t padding, int32_t size, int32_t *place,
    int32_t *at)
{
    int count = 0;
    int32_t moved = (int32_t)site + padding, out = moved / stride;
    for (int32_t k = moved % stride; k < kernel && out >= 0; k += stride, out--) {
        place[count] = k;
        at[count] = out;
        count += out < size;
    }
    return count;
}

/* DO for each place `k` at which `site` is met, `cell` being the output's; g: see wm_strided_count. */
#define EACH(SITE, DO)                                                                                                 \
    {                                                                                                                  \
        const int64_t *s = SITE;                                                                                       \
        int32_t pz[MOST], py[MOST], px[MOST], az[MOST], ay[MOST], ax[MOST];                                            \
        int nz = along(s[1], g[0], g[3], g[6], g[9], pz, az), ny = along(s[2], g[1], g[4], g[7], g[10], py, ay),       \
            nx = along(s[3], g[2], g[5], g[8], g[11], px, ax);                                                         \
        for (int z = 0; z < nz; z++)                                                                                   \
            for (int y = 0; y < ny; y++)                                                                               \
                for (int x = 0; x < nx; x++) {                                                                         \
                    int32_t k = (pz[z] * g[1] + py[y]) * g[2] + px[x];                                                 \
                    int64_t cell = ((s[0] * g[9] + az[z]) * g[10] + ay[y]) * g[11] + ax[x];                            \
                    DO                                                                                                 \
                }                                                                                                      \
    }

/* Strided, first pass. sites (n, 4); geometry g (12): kernel, stride, padding and output grid, each as z, y, x. bits
 * (words): zeros, one for each cell of the output grids, 64 to a word; they become the outputs, every cell that meets an
 * input. before (words): outputs before each word. starts (places + 1): where the pairs of each place begin. Returns the
 * number of outputs. */
API int64_t wm_strided_count(const int64_t *sites, int64_t n, const int32_t *g, uint64_t *bits, int32_t *before,
    int64_t words, int64_t *starts)
{
    int64_t places = g[0] * g[1] * g[2], total = 0;
    memset(starts, 0, (size_t)(places + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < n; i++) EACH(sites + 4 * i, bits[cell >> 6] |= 1ULL << (cell & 63); starts[k + 1]++;)
    for (int64_t k = 0; k < places; k++) starts[k + 1] += starts[k];
    for (int64_t word = 0; word < words; word++) {
        before[word] = (int32_t)total;
        total += __builtin_popcountll(bits[word]);
    }
    return total;
}

/* Second pass: the pairs, and the output sites (., 4). cursors (places): scratch. */
API void wm_strided_fill(const int64_t *sites, int64_t n, const int32_t *g, const uint64_t *bits, const int32_t *before,
    int64_t words, const int64_t *starts, int64_t *cursors, int32_t *inputs, int32_t *outputs, int64_t *out_sites)
{
    memcpy(cursors, starts, (size_t)(g[0] * g[1] * g[2]) * sizeof(int64_t));
    for (int64_t i = 0; i < n; i++)
        EACH(sites + 4 * i, uint64_t lower = bits[cell >> 6] & ((1ULL << (cell & 63)) - 1); int64_t p = cursors[k]++;
            inputs[p] = (int32_t)i; outputs[p] = before[cell >> 6] + __builtin_popcountll(lower);)
    for (int64_t word = 0; word < words; word++)
        for (uint64_t left = bits[word]; left; left &= left - 1, out_sites += 4) {
            int64_t cell = word * 64 + __builtin_ctzll(left);
            out_sites[3] = cell % g[11], cell /= g[11];
            out_sites[2] = cell % g[10], cell /= g[10];
            out_sites[1] = cell % g[9], out_sites[0] = cell / g[9];
        }
}

/* Where the pairs of each tile of rows begin within each place; bounds (places, tiles + 1). */
API void wm_bounds(const int32_t *rows, const int64_t *starts, int64_t places, int64_t tiles, int64_t *bounds)
{
    for (int64_t k = 0; k < places; k++)
        for (int64_t t = 0; t <= tiles; t++) {
            int64_t low = starts[k], high = starts[k + 1];
            while (low < high) {
                int64_t middle = (low + high) / 2;
                if (rows[middle] < t * TILE) low = middle + 1;
                else high = middle;
            }
            bounds[k * (tiles + 1) + t] = low;
        }
}

API int32_t wm_tile(void) { return TILE; }

/* Whether this CPU has the vector instructions that the library was compiled for. */
API int32_t wm_runs_here(void)
{
    int32_t fits = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(__AVX2__)
    fits &= __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if defined(__AVX512F__)
    fits &= __builtin_cpu_supports("avx512f") != 0;
#endif
#if defined(__AVX512VL__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
    fits &= __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#endif
#endif
    return fits;
}
