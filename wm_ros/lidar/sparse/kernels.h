/* What the C files of sparse convolution share. Rows are C-contiguous; every index fits what its type says. */
#ifndef WM_KERNELS_H
#define WM_KERNELS_H
#include <stdint.h>

#define API __attribute__((visibility("default")))
#define TILE 256 /* output sites that one thread keeps in cache */

/* A convolution on a rulebook.
 * x (., cin): inputs. w (places, cin, cout). y (sites, cout): outputs, ascending within each place.
 * bounds (places, tiles + 1): where the pairs of each tile begin. centre: the place at which a site meets itself, or -1.
 * scale, shift (cout): y becomes max(0, y * scale + shift) where they are given, else they are NULL. */
typedef struct {
    const void *x, *w;
    int64_t cin, cout;
    const int32_t *inputs, *outputs;
    const int64_t *bounds;
    int64_t places, tiles, centre, sites;
    const float *scale, *shift;
    float *y;
} Convolution;

/* y[out[p]] += x[in[p]] @ w for the pairs of one place and one tile. */
typedef void (*Multiply)(const Convolution *c, const void *w, const int32_t *in, const int32_t *out, int64_t pairs);

/* Tiles first .. last of a convolution, places in ascending order: the same sums whoever computes them. */
void wm_tiles(const Convolution *c, int64_t weight_bytes, Multiply multiply, int64_t first, int64_t last);
#endif
