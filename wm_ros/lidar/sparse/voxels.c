/* A sweep becomes the mean of the first few points of each occupied voxel. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

/* points (n, 4): x, y, z, intensity; low, size, cells (3): of the grid along x, y, z. Points outside or not finite do not
 * count. Voxels that are seen first stay where there are more than max_voxels; in each, the first max_points points
 * count, in order of arrival. coordinates (., 3): z, y, x, ascending; features (., 4): means; both have room for the
 * smaller of n and max_voxels. Returns the number of voxels, or -1 where memory is short. */
API int64_t wm_voxelise(const float *points, int64_t n, const float *low, const float *size, const int32_t *cells,
    int32_t max_points, int64_t max_voxels, int32_t *coordinates, float *features)
{
    int64_t words = ((int64_t)cells[0] * cells[1] * cells[2] + 63) / 64, seen = 0;
    uint64_t *bits = calloc((size_t)words + 1, sizeof(uint64_t)); /* one for each voxel that stays */
    int32_t *before = malloc(((size_t)words + 1) * sizeof(int32_t)); /* voxels before each word */
    int64_t *cell = malloc(((size_t)n + 1) * sizeof(int64_t)); /* of each point, -1 for none */
    int32_t *held = calloc((size_t)n + 1, sizeof(int32_t)); /* points of each voxel so far */
    if (!bits || !before || !cell || !held) {
        free(bits), free(before), free(cell), free(held);
        return -1;
    }
    for (int64_t i = 0; i < n; i++) {
        const float *p = points + 4 * i;
        float x = floorf((p[0] - low[0]) / size[0]), y = floorf((p[1] - low[1]) / size[1]),
              z = floorf((p[2] - low[2]) / size[2]);
        cell[i] = -1;
        if (!(x >= 0 && x < (float)cells[0] && y >= 0 && y < (float)cells[1] && z >= 0 && z < (float)cells[2])) continue;
        if (!isfinite(p[3])) continue;
        int64_t at = ((int64_t)z * cells[1] + (int64_t)y) * cells[0] + (int64_t)x;
        uint64_t bit = 1ULL << (at & 63);
        if (!(bits[at >> 6] & bit)) {
            if (seen == max_voxels) continue;
            seen++;
            bits[at >> 6] |= bit;
        }
        cell[i] = at;
    }
    for (int64_t word = 0, row = 0; word < words; word++) {
        before[word] = (int32_t)row;
        for (uint64_t left = bits[word]; left; left &= left - 1, row++) {
            int64_t at = word * 64 + __builtin_ctzll(left);
            coordinates[3 * row + 2] = (int32_t)(at % cells[0]), at /= cells[0];
            coordinates[3 * row + 1] = (int32_t)(at % cells[1]);
            coordinates[3 * row] = (int32_t)(at / cells[1]);
            for (int c = 0; c < 4; c++) features[4 * row + c] = 0;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        if (cell[i] < 0) continue;
        uint64_t lower = bits[cell[i] >> 6] & ((1ULL << (cell[i] & 63)) - 1);
        int64_t row = before[cell[i] >> 6] + __builtin_popcountll(lower);
        if (held[row] == max_points) continue;
        held[row]++;
        for (int c = 0; c < 4; c++) features[4 * row + c] += points[4 * i + c];
    }
    for (int64_t row = 0; row < seen; row++)
        for (int c = 0; c < 4; c++) features[4 * row + c] /= (float)held[row];
    free(bits), free(before), free(cell), free(held);
    return seen;
}
