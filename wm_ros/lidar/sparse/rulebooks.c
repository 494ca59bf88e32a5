/* Which input site meets which output site, for each place of a kernel.
 *
 * Pairs are listed place by place, ascending in the input and in the output alike: sites ascend in (batch, z, y, x),
 * and a fixed place moves them all by the same step.
 */
#include "kernels.h"
#include <stdlib.h>
#include <string.h>

/* Pairs a[i] + shift == b[j] of two ascending lists; returns how many. */
static int64_t meet(const int64_t *a, const int64_t *b, int64_t n, int64_t shift, int32_t *left, int32_t *right)
{
    int64_t count = 0, j = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t wanted = a[i] + shift;
        while (j < n && b[j] < wanted) j++;
        left[count] = (int32_t)i;
        right[count] = (int32_t)j;
        count += j < n && b[j] == wanted;
    }
    return count;
}

/* Submanifold 3 x 3 x 3. keys (n) ascend, on a grid with a margin so that neighbours do not wrap; shifts (13) are the
 * steps in key of the first 13 places. inputs, outputs have room for 26 n + 1 pairs; starts (28): where places begin.
 * The centre, place 13, has no pairs: there every site meets itself. */
API void wm_submanifold(const int64_t *keys, int64_t n, const int64_t *shifts, int32_t *inputs, int32_t *outputs,
    int64_t *starts)
{
    int64_t at = 0;
    for (int k = 0; k < 13; k++) {
        starts[k] = at;
        at += meet(keys, keys, n, shifts[k], outputs + at, inputs + at);
    }
    starts[13] = starts[14] = at;
    for (int k = 14; k < 27; k++) { /* the mirror image of place 26 - k */
        int64_t from = starts[26 - k], count = starts[27 - k] - from;
        starts[k] = at;
        memcpy(inputs + at, outputs + from, (size_t)count * sizeof(int32_t));
        memcpy(outputs + at, inputs + from, (size_t)count * sizeof(int32_t));
        at += count;
    }
    starts[27] = at;
}

/* The output row of site (b, z, y, x) at place (dz, dy, dx) of a strided kernel, or -1 where it meets none. */
static inline int64_t meets(const int64_t *site, const int32_t *g, int dz, int dy, int dx)
{
    int64_t z = site[1] + g[6] - dz, y = site[2] + g[7] - dy, x = site[3] + g[8] - dx;
    if (z < 0 || y < 0 || x < 0 || z % g[3] || y % g[4] || x % g[5]) return -1;
    z /= g[3], y /= g[4], x /= g[5];
    if (z >= g[9] || y >= g[10] || x >= g[11]) return -1;
    return ((site[0] * g[9] + z) * g[10] + y) * g[11] + x;
}

/* Strided. sites (n, 4); geometry (12): kernel, stride, padding and output grid, each as z, y, x. inputs, outputs have
 * room for n * places pairs, out_sites for as many rows; starts (places + 1). Returns the number of output sites, or
 * -1 where memory is short. A bit for each cell of the output grid, with running counts, gives each its number. */
API int64_t wm_strided(const int64_t *sites, int64_t n, int64_t batch, const int32_t *g, int32_t *inputs, int32_t *outputs,
    int64_t *starts, int64_t *out_sites)
{
    int64_t words = (batch * g[9] * g[10] * g[11] + 63) / 64, total = 0, at = 0;
    uint64_t *bits = calloc((size_t)words + 1, sizeof(uint64_t));
    int32_t *before = malloc(((size_t)words + 1) * sizeof(int32_t));
    if (!bits || !before) {
        free(bits), free(before);
        return -1;
    }
    for (int64_t i = 0; i < n; i++)
        for (int dz = 0; dz < g[0]; dz++)
            for (int dy = 0; dy < g[1]; dy++)
                for (int dx = 0; dx < g[2]; dx++) {
                    int64_t row = meets(sites + 4 * i, g, dz, dy, dx);
                    if (row >= 0) bits[row >> 6] |= 1ULL << (row & 63);
                }
    for (int64_t word = 0; word < words; word++) {
        before[word] = (int32_t)total;
        for (uint64_t left = bits[word]; left; left &= left - 1) {
            int64_t row = word * 64 + __builtin_ctzll(left), *site = out_sites + 4 * total++;
            site[3] = row % g[11], row /= g[11];
            site[2] = row % g[10], row /= g[10];
            site[1] = row % g[9], site[0] = row / g[9];
        }
    }
    int place = 0;
    for (int dz = 0; dz < g[0]; dz++)
        for (int dy = 0; dy < g[1]; dy++)
            for (int dx = 0; dx < g[2]; dx++) {
                starts[place++] = at;
                for (int64_t i = 0; i < n; i++) {
                    int64_t row = meets(sites + 4 * i, g, dz, dy, dx);
                    if (row < 0) continue;
                    uint64_t lower = bits[row >> 6] & ((1ULL << (row & 63)) - 1);
                    inputs[at] = (int32_t)i;
                    outputs[at++] = before[row >> 6] + __builtin_popcountll(lower);
                }
            }
    starts[place] = at;
    free(bits), free(before);
    return total;
}

/* Where the pairs of each tile of rows begin within each place; bounds (places, tiles + 1). */
API void wm_bounds(const int32_t *rows, const int64_t *starts, int64_t places, int64_t tiles, int64_t *bounds)
{
    for (int64_t k = 0; k < places; k++) {
        int64_t p = starts[k], end = starts[k + 1], *out = bounds + k * (tiles + 1);
        for (int64_t t = 0; t <= tiles; t++) {
            while (p < end && rows[p] < t * TILE) p++;
            out[t] = p;
        }
        out[tiles] = end;
    }
}

API int32_t wm_tile(void) { return TILE; }
