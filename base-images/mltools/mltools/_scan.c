/* The compiled part of mltools.polygon_features: polygons to runs of pixels, and runs of pixels to features.
 *
 * Both functions have a twin in numpy (mltools.polygon_runs, mltools.run_statistics) that gives the same values; the
 * twins are the reference, this file is for speed. Arguments are flat buffers of a stated type, in C order and in the
 * machine's byte order. Both release the interpreter's lock while they work.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Where the compiler can, wider vectors are used on processors that have them; the values are the same. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("default", "avx2")))
#else
#define CLONES
#endif

/* ---- polygons to runs ------------------------------------------------------------------------------------------- */

/* A run: the pixels first <= column < last of one row. */
typedef struct {
    int32_t row, first, last;
} run_t;

typedef struct {
    run_t *items;
    size_t count, room;
} runs_t;

/* Scratch that one call reuses for every polygon. */
typedef struct {
    int64_t *starts;
    size_t starts_room;
    double *crossings;
    size_t crossings_room;
} scratch_t;

enum { RUNS_OK = 0, RUNS_TIE = 1, RUNS_TOO_MANY = 2, RUNS_NO_MEMORY = -1 };

/* Closer than this (pixels) to a pixel's centre, rounding decides: such polygons are left to GDAL itself. */
static const double TIE = 1e-6;

static int grow(void **items, size_t *room, size_t wanted, size_t size)
{
    if (wanted <= *room)
        return 1;
    size_t larger = *room + *room / 2;
    if (larger < wanted)
        larger = wanted;
    if (larger < 64)
        larger = 64;
    void *moved = realloc(*items, larger * size);
    if (!moved)
        return 0;
    *items = moved;
    *room = larger;
    return 1;
}

static int near_centre(double position)
{
    double fraction = position - floor(position) - 0.5;
    return fraction < TIE && fraction > -TIE;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int compare_runs(const void *a, const void *b)
{
    const run_t *x = a, *y = b;
    if (x->row != y->row)
        return (x->row > y->row) - (x->row < y->row);
    return (x->first > y->first) - (x->first < y->first);
}

static void sort_doubles(double *values, int64_t count)
{
    if (count > 32) {
        qsort(values, (size_t)count, sizeof(double), compare_doubles);
        return;
    }
    for (int64_t i = 1; i < count; i++) {
        double value = values[i];
        int64_t j = i;
        for (; j > 0 && values[j - 1] > value; j--)
            values[j] = values[j - 1];
        values[j] = value;
    }
}

/* The first row whose centre is at or below y, kept inside 0..rows. */
static int64_t first_row_from(double y, int64_t rows)
{
    double row = ceil(y - 0.5);
    if (!(row > 0))
        return 0;
    return row > (double)rows ? rows : (int64_t)row;
}

static double clamp(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

/* Runs of one part (an exterior ring with its holes) by the even-odd rule. Points are (column, row) pairs. */
static int part_runs(const double *points, const int64_t *rings, int64_t ring0, int64_t ring1, int64_t rows,
                     int64_t cols, int64_t most, scratch_t *scratch, runs_t *runs)
{
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = rings[ring0]; i < rings[ring1]; i++) {
        double y = points[2 * i + 1];
        low = y < low ? y : low;
        high = y > high ? y : high;
    }
    int64_t row0 = first_row_from(low, rows), row1 = first_row_from(high, rows);
    int tie = 0;
    if (row0 >= row1) {
        /* No row of centres between: a tie still matters, GDAL draws a horizontal edge on a row of centres. */
        for (int64_t i = rings[ring0]; i < rings[ring1]; i++)
            tie |= near_centre(points[2 * i + 1]);
        return tie ? RUNS_TIE : RUNS_OK;
    }
    size_t height = (size_t)(row1 - row0);
    if (!grow((void **)&scratch->starts, &scratch->starts_room, height + 2, sizeof(int64_t)))
        return RUNS_NO_MEMORY;
    int64_t *starts = scratch->starts;
    memset(starts, 0, (height + 2) * sizeof(int64_t));

    /* How many edges cross each row: a difference array, shifted by one for the filling below. */
    for (int64_t ring = ring0; ring < ring1; ring++) {
        int64_t first = rings[ring], last = rings[ring + 1];
        for (int64_t i = first, j = last - 1; i < last; j = i++) {
            double y1 = points[2 * j + 1], y2 = points[2 * i + 1];
            tie |= near_centre(y2);
            int64_t from = first_row_from(y1 < y2 ? y1 : y2, rows), to = first_row_from(y1 < y2 ? y2 : y1, rows);
            if (from < to) {
                starts[from - row0 + 1]++;
                if ((size_t)(to - row0) + 1 < height + 2)
                    starts[to - row0 + 1]--;
            }
        }
    }
    if (tie)
        return RUNS_TIE;
    int64_t total = 0, active = 0;
    for (size_t k = 1; k <= height; k++) {
        active += starts[k];
        starts[k] = total; /* where the crossings of row k - 1 begin */
        total += active;
        if (total > most)
            return RUNS_TOO_MANY;
    }
    if (!grow((void **)&scratch->crossings, &scratch->crossings_room, (size_t)total, sizeof(double)))
        return RUNS_NO_MEMORY;
    double *crossings = scratch->crossings;
    for (int64_t ring = ring0; ring < ring1; ring++) {
        int64_t first = rings[ring], last = rings[ring + 1];
        for (int64_t i = first, j = last - 1; i < last; j = i++) {
            double x1 = points[2 * j], y1 = points[2 * j + 1], x2 = points[2 * i], y2 = points[2 * i + 1];
            if (y1 > y2) {
                double swap = x1;
                x1 = x2, x2 = swap;
                swap = y1, y1 = y2, y2 = swap;
            }
            int64_t from = first_row_from(y1, rows), to = first_row_from(y2, rows);
            for (int64_t row = from; row < to; row++) {
                double x = ((double)row + 0.5 - y1) * (x2 - x1) / (y2 - y1) + x1;
                tie |= near_centre(x);
                crossings[starts[row - row0 + 1]++] = x;
            }
        }
    }
    if (tie)
        return RUNS_TIE;
    /* starts[k] has become the end of row k - 1, which is the beginning of row k. */
    starts[0] = 0;
    for (size_t k = 0; k < height; k++) {
        int64_t begin = starts[k], count = starts[k + 1] - begin;
        double *row = crossings + begin;
        sort_doubles(row, count);
        if (!grow((void **)&runs->items, &runs->room, runs->count + (size_t)(count / 2), sizeof(run_t)))
            return RUNS_NO_MEMORY;
        for (int64_t i = 0; i + 1 < count; i += 2) {
            int32_t left = (int32_t)floor(clamp(row[i], -1.0, (double)cols + 1.0) + 0.5);
            int32_t right = (int32_t)floor(clamp(row[i + 1], -1.0, (double)cols + 1.0) + 0.5);
            left = left < 0 ? 0 : left;
            right = right > cols ? (int32_t)cols : right;
            if (left < right)
                runs->items[runs->count++] = (run_t){(int32_t)(row0 + (int64_t)k), left, right};
        }
    }
    return RUNS_OK;
}

/* Sort and merge the runs from `begin`, so that pixels shared by several parts count once. */
static void merge_runs(runs_t *runs, size_t begin)
{
    size_t count = runs->count - begin;
    if (count < 2)
        return;
    run_t *items = runs->items + begin;
    qsort(items, count, sizeof(run_t), compare_runs);
    size_t kept = 0;
    for (size_t i = 1; i < count; i++) {
        if (items[i].row == items[kept].row && items[i].first <= items[kept].last) {
            if (items[i].last > items[kept].last)
                items[kept].last = items[i].last;
        } else {
            items[++kept] = items[i];
        }
    }
    runs->count = begin + kept + 1;
}

static const char runs_doc[] =
    "polygon_runs(points, rings, parts, polygons, rows, cols, most, run_starts, states) -> bytes\n\n"
    "Runs of pixels (int32 row, first, last) whose centres lie in each polygon, in an image of rows x cols.\n"
    "points float64 (n, 2) columns and rows; rings, parts, polygons int64 offsets into points, rings, parts;\n"
    "run_starts int64 (polygons + 1) and states uint8 (polygons: 0 done, 1 tie, 2 too many crossings) are filled.";

static PyObject *polygon_runs(PyObject *self, PyObject *args)
{
    Py_buffer points, rings, parts, polygons, run_starts, states;
    long long rows, cols, most;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*y*LLLw*w*", &points, &rings, &parts, &polygons, &rows, &cols, &most,
                          &run_starts, &states))
        return NULL;
    const int64_t *part_of = polygons.buf, *ring_of = parts.buf;
    int64_t count = (int64_t)(polygons.len / (Py_ssize_t)sizeof(int64_t)) - 1;
    int64_t *starts = run_starts.buf;
    uint8_t *state = states.buf;
    runs_t runs = {NULL, 0, 0};
    scratch_t scratch = {NULL, 0, NULL, 0};
    int failed = 0;
    if (run_starts.len < (count + 1) * (Py_ssize_t)sizeof(int64_t) || states.len < count) {
        PyErr_SetString(PyExc_ValueError, "run_starts or states is shorter than the list of polygons");
        failed = 1;
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    starts[0] = 0;
    for (int64_t k = 0; k < count && !failed; k++) {
        size_t begin = runs.count;
        state[k] = RUNS_OK;
        for (int64_t part = part_of[k]; part < part_of[k + 1]; part++) {
            int found = part_runs(points.buf, rings.buf, ring_of[part], ring_of[part + 1], rows, cols, most, &scratch,
                                  &runs);
            if (found == RUNS_NO_MEMORY)
                failed = 1;
            if (found != RUNS_OK) {
                state[k] = (uint8_t)found;
                runs.count = begin;
                break;
            }
        }
        if (part_of[k + 1] - part_of[k] > 1)
            merge_runs(&runs, begin);
        starts[k + 1] = (int64_t)runs.count;
    }
    Py_END_ALLOW_THREADS
    if (failed)
        PyErr_NoMemory();
done:;
    PyObject *result = failed ? NULL : PyBytes_FromStringAndSize((const char *)runs.items, (Py_ssize_t)(runs.count * sizeof(run_t)));
    free(runs.items);
    free(scratch.starts);
    free(scratch.crossings);
    PyBuffer_Release(&points);
    PyBuffer_Release(&rings);
    PyBuffer_Release(&parts);
    PyBuffer_Release(&polygons);
    PyBuffer_Release(&run_starts);
    PyBuffer_Release(&states);
    return result;
}

/* ---- runs to statistics ------------------------------------------------------------------------------------------ */

enum { STRETCH = 64, MOST_BANDS = 64, MOST_STATISTICS = 16 };

typedef struct {
    const uint8_t *data;
    int64_t size;
    int kind; /* numpy's character of the data type */
    int64_t bands, pixel_stride, band_stride, row_stride;
    const int64_t *offsets; /* of every block, or of every block of every band */
    int planes;             /* 1, or the number of bands */
    int64_t block_rows, block_cols, row0, col0, grid_rows, grid_cols;
} grid_t;

typedef struct {
    int64_t ratios, signatures;
    const int32_t *ratio_bands; /* pairs, from 0 */
    const double *signature, *norm;
    double epsilon, nodata;
    int has_nodata, exact; /* exact: the signatures are whole numbers, small enough for exact sums */
} measure_t;

#define LOAD(TYPE)                                                                     \
    for (int64_t i = 0; i < count; i++) {                                              \
        TYPE value;                                                                    \
        memcpy(&value, from + i * stride, sizeof(TYPE));                               \
        to[i] = (double)value;                                                         \
    }                                                                                  \
    return 1

static inline int load(int kind, const uint8_t *from, int64_t stride, int64_t count, double *to)
{
    switch (kind) {
    case 'H': LOAD(uint16_t);
    case 'B': LOAD(uint8_t);
    case 'b': LOAD(int8_t);
    case 'h': LOAD(int16_t);
    case 'I': LOAD(uint32_t);
    case 'i': LOAD(int32_t);
    case 'f': LOAD(float);
    case 'd': LOAD(double);
    }
    return 0;
}

/* Fold `count` pixels, given band by band, into the largest ratios and cosines. Bands are added in order, as numpy's
 * twin does, so that both give the same bits. Returns how many pixels could be used. */
static inline int64_t fold_bands(const double (*values)[STRETCH], int64_t count, int64_t bands, const measure_t *m,
                                 double *best)
{
    double square[STRETCH], product[MOST_STATISTICS][STRETCH];
    uint8_t bad[STRETCH];
    for (int64_t i = 0; i < count; i++) {
        square[i] = 0.0;
        bad[i] = 0;
    }
    for (int64_t b = 0; b < bands; b++)
        for (int64_t i = 0; i < count; i++)
            square[i] += values[b][i] * values[b][i];
    for (int64_t s = 0; s < m->signatures; s++) {
        for (int64_t i = 0; i < count; i++)
            product[s][i] = 0.0;
        for (int64_t b = 0; b < bands; b++) {
            double weight = m->signature[s * bands + b];
            for (int64_t i = 0; i < count; i++)
                product[s][i] += values[b][i] * weight;
        }
    }
    if (m->has_nodata)
        for (int64_t b = 0; b < bands; b++)
            for (int64_t i = 0; i < count; i++)
                bad[i] |= values[b][i] == m->nodata;
    int64_t used = 0;
    for (int64_t i = 0; i < count; i++) {
        bad[i] |= !(square[i] > 0.0 && square[i] <= DBL_MAX); /* all bands zero, or one not a finite number */
        used += !bad[i];
    }
    for (int64_t r = 0; r < m->ratios; r++) {
        const double *a = values[m->ratio_bands[2 * r]], *b = values[m->ratio_bands[2 * r + 1]];
        double top = best[r];
        for (int64_t i = 0; i < count; i++) {
            double ratio = (a[i] - b[i]) / (a[i] + b[i] + m->epsilon);
            if (!bad[i] && ratio > top)
                top = ratio;
        }
        best[r] = top;
    }
    for (int64_t i = 0; i < count; i++)
        square[i] = sqrt(square[i]);
    for (int64_t s = 0; s < m->signatures; s++) {
        double top = best[m->ratios + s], norm = m->norm[s];
        for (int64_t i = 0; i < count; i++) {
            double cosine = product[s][i] / (square[i] * norm);
            if (!bad[i] && cosine > top)
                top = cosine;
        }
        best[m->ratios + s] = top;
    }
    return used;
}

/* Eight unsigned 16-bit bands beside each other, whole-numbered signatures: every sum below is exact in a double, so
 * the order of adding does not matter and bands are added side by side, four pixels at a time. */
typedef double four_t __attribute__((vector_size(32)));
typedef int64_t four_flags_t __attribute__((vector_size(32)));
typedef uint16_t four_bands_t __attribute__((vector_size(8)));

static inline __attribute__((always_inline)) four_t pick(four_flags_t flags, four_t yes, four_t no)
{
    return (four_t)((flags & (four_flags_t)yes) | (~flags & (four_flags_t)no));
}

/* The sums of four vectors as one vector. */
static inline __attribute__((always_inline)) four_t sums(const four_t *v)
{
    const four_flags_t even = {0, 4, 2, 6}, odd = {1, 5, 3, 7}, low = {0, 1, 4, 5}, high = {2, 3, 6, 7};
    four_t a = __builtin_shuffle(v[0], v[1], even) + __builtin_shuffle(v[0], v[1], odd);
    four_t b = __builtin_shuffle(v[2], v[3], even) + __builtin_shuffle(v[2], v[3], odd);
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

static inline __attribute__((always_inline)) void keep_largest(four_t *top, four_t value, four_flags_t usable)
{
    *top = pick(usable & (value > *top), value, *top);
}

/* Fold `count` (1 to 4) pixels into the largest values so far, lane by lane; returns how many could be used. */
static inline __attribute__((always_inline)) int64_t fold_four(const uint16_t *pixels, int64_t count,
                                                               const measure_t *m, four_t *top)
{
    four_t low[4], high[4], square[4], part[4];
    uint16_t copy[32] = {0};
    if (count < 4) {
        memcpy(copy, pixels, (size_t)count * 16);
        pixels = copy; /* pixels of zeros are not usable */
    }
    for (int i = 0; i < 4; i++) {
        four_bands_t first, second;
        memcpy(&first, pixels + 8 * i, 8);
        memcpy(&second, pixels + 8 * i + 4, 8);
        low[i] = __builtin_convertvector(first, four_t);
        high[i] = __builtin_convertvector(second, four_t);
        square[i] = low[i] * low[i] + high[i] * high[i];
    }
    four_t length = sums(square);
    four_flags_t usable = length > 0.0;
    if (m->has_nodata)
        for (int i = 0; i < 4; i++)
            for (int b = 0; b < 8; b++)
                if ((double)pixels[8 * i + b] == m->nodata)
                    usable[i] = 0;
    length = (four_t){sqrt(length[0]), sqrt(length[1]), sqrt(length[2]), sqrt(length[3])};
    for (int64_t r = 0; r < m->ratios; r++) {
        int32_t a = m->ratio_bands[2 * r], b = m->ratio_bands[2 * r + 1];
        four_t x = {pixels[a], pixels[a + 8], pixels[a + 16], pixels[a + 24]};
        four_t y = {pixels[b], pixels[b + 8], pixels[b + 16], pixels[b + 24]};
        keep_largest(top + r, (x - y) / (x + y + m->epsilon), usable);
    }
    for (int64_t s = 0; s < m->signatures; s++) {
        four_t first, second;
        memcpy(&first, m->signature + 8 * s, sizeof first);
        memcpy(&second, m->signature + 8 * s + 4, sizeof second);
        for (int i = 0; i < 4; i++)
            part[i] = low[i] * first + high[i] * second;
        keep_largest(top + m->ratios + s, sums(part) / (length * m->norm[s]), usable);
    }
    return -(usable[0] + usable[1] + usable[2] + usable[3]);
}

static int64_t fold(const double (*values)[STRETCH], int64_t count, int64_t bands, const measure_t *m, double *best)
{
    return bands == 8 ? fold_bands(values, count, 8, m, best) : fold_bands(values, count, bands, m, best);
}

static int item_size(int kind)
{
    return kind == 'd' ? 8 : kind == 'f' || kind == 'i' || kind == 'I' ? 4 : kind == 'h' || kind == 'H' ? 2 : 1;
}

/* Fold the pixels [first, last) of one row of one block. Returns 0 where the block reaches past the data. */
static inline __attribute__((always_inline)) int fold_stretch(const grid_t *g, const measure_t *m, int64_t block, int64_t row, int64_t first, int64_t last,
                        double *best, four_t *top, int64_t *used)
{
    double values[MOST_BANDS][STRETCH];
    int64_t blocks = g->grid_rows * g->grid_cols;
    if (m->exact && g->kind == 'H' && g->planes == 1 && g->bands == 8 && g->pixel_stride == 16 && g->band_stride == 2) {
        int64_t offset = g->offsets[block];
        if (offset < 0)
            return 1;
        offset += row * g->row_stride;
        if (offset + last * 16 > g->size)
            return 0;
        for (int64_t at = first; at < last; at += 4)
            *used += fold_four((const uint16_t *)(const void *)(g->data + offset + at * 16), last - at < 4 ? last - at : 4,
                               m, top);
        return 1;
    }
    for (int64_t at = first; at < last; at += STRETCH) {
        int64_t count = last - at < STRETCH ? last - at : STRETCH;
        for (int64_t b = 0; b < g->bands; b++) {
            int64_t offset = g->offsets[g->planes > 1 ? b * blocks + block : block];
            if (offset < 0)
                return 1; /* a block that was never written: no data */
            offset += row * g->row_stride + at * g->pixel_stride + (g->planes > 1 ? 0 : b * g->band_stride);
            if (offset + (count - 1) * g->pixel_stride + item_size(g->kind) > g->size)
                return 0;
            load(g->kind, g->data + offset, g->pixel_stride, count, values[b]);
        }
        *used += fold((const double (*)[STRETCH])values, count, g->bands, m, best);
    }
    return 1;
}

/* Ask for the pixels of a later run, which lie far away in memory: the rows of a tile are some kilobytes apart. */
static inline __attribute__((always_inline)) void fetch_ahead(const grid_t *g, const run_t *run)
{
    int64_t row = run->row - g->row0, col = run->first - g->col0;
    if (g->planes != 1 || row >= g->grid_rows * g->block_rows || col < 0 || col >= g->grid_cols * g->block_cols)
        return;
    int64_t offset = g->offsets[row / g->block_rows * g->grid_cols + col / g->block_cols];
    if (offset < 0)
        return;
    const uint8_t *at = g->data + offset + row % g->block_rows * g->row_stride + col % g->block_cols * g->pixel_stride;
    for (int64_t ahead = 0; ahead < (run->last - run->first) * g->pixel_stride && ahead < 512; ahead += 64)
        __builtin_prefetch(at + ahead);
}

/* Fold the part of a polygon's runs that lies on the grid of blocks. */
CLONES static int fold_runs(const grid_t *g, const measure_t *m, const run_t *runs, const run_t *end, double *best,
                     int64_t *counts)
{
    int64_t bottom = g->row0 + g->grid_rows * g->block_rows, right = g->col0 + g->grid_cols * g->block_cols;
    if (runs < end && runs->row < g->row0) { /* the first run at or below the grid's top */
        const run_t *low = runs, *high = end;
        while (low < high) {
            const run_t *middle = low + (high - low) / 2;
            if (middle->row < g->row0)
                low = middle + 1;
            else
                high = middle;
        }
        runs = low;
    }
    four_t top[2 * MOST_STATISTICS];
    for (int64_t i = 0; i < m->ratios + m->signatures; i++)
        top[i] = (four_t){best[i], best[i], best[i], best[i]};
    for (; runs < end && runs->row < bottom; runs++) {
        if (end - runs > 2)
            fetch_ahead(g, runs + 2);
        int64_t first = runs->first > g->col0 ? runs->first : g->col0, last = runs->last < right ? runs->last : right;
        if (first >= last)
            continue;
        counts[0] += last - first;
        int64_t row = runs->row - g->row0, block_row = row / g->block_rows;
        row -= block_row * g->block_rows;
        while (first < last) {
            int64_t block_col = (first - g->col0) / g->block_cols;
            int64_t left = g->col0 + block_col * g->block_cols;
            int64_t stop = left + g->block_cols < last ? left + g->block_cols : last;
            if (!fold_stretch(g, m, block_row * g->grid_cols + block_col, row, first - left, stop - left, best, top,
                              counts + 1))
                return 0;
            first = stop;
        }
    }
    for (int64_t i = 0; i < m->ratios + m->signatures; i++)
        for (int lane = 0; lane < 4; lane++)
            best[i] = top[i][lane] > best[i] ? top[i][lane] : best[i];
    return 1;
}

static const char statistics_doc[] =
    "run_statistics(data, kind, bands, pixel_stride, band_stride, row_stride, offsets, planes, block_rows, block_cols,\n"
    "               row0, col0, grid_rows, grid_cols, runs, run_starts, wanted, ratio_bands, epsilon, signatures,\n"
    "               norms, has_nodata, nodata, best, counts) -> None\n\n"
    "Largest band ratios and cosines over each wanted polygon's runs, folded into best float64 (wanted, ratios +\n"
    "signatures); counts int64 (wanted, 2) gains the pixels seen and the pixels used. ValueError: data are too short.";

static PyObject *run_statistics(PyObject *self, PyObject *args)
{
    Py_buffer data, offsets, runs, run_starts, wanted, ratio_bands, signatures, norms, best, counts;
    grid_t g;
    measure_t m;
    long long bands, pixel_stride, band_stride, row_stride, block_rows, block_cols, row0, col0, grid_rows, grid_cols;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*CLLLLy*iLLLLLLy*y*y*y*dy*y*pdw*w*", &data, &g.kind, &bands, &pixel_stride,
                          &band_stride, &row_stride, &offsets, &g.planes, &block_rows, &block_cols, &row0, &col0,
                          &grid_rows, &grid_cols, &runs, &run_starts, &wanted, &ratio_bands, &m.epsilon, &signatures,
                          &norms, &m.has_nodata, &m.nodata, &best, &counts))
        return NULL;
    g.data = data.buf;
    g.size = data.len;
    g.bands = bands, g.pixel_stride = pixel_stride, g.band_stride = band_stride, g.row_stride = row_stride;
    g.offsets = offsets.buf;
    g.block_rows = block_rows, g.block_cols = block_cols, g.row0 = row0, g.col0 = col0;
    g.grid_rows = grid_rows, g.grid_cols = grid_cols;
    m.ratios = ratio_bands.len / (Py_ssize_t)(2 * sizeof(int32_t));
    m.signatures = norms.len / (Py_ssize_t)sizeof(double);
    m.ratio_bands = ratio_bands.buf;
    m.signature = signatures.buf;
    m.norm = norms.buf;
    int64_t count = wanted.len / (Py_ssize_t)sizeof(int64_t), width = m.ratios + m.signatures;
    int64_t polygons = run_starts.len / (Py_ssize_t)sizeof(int64_t) - 1;
    const int64_t *number = wanted.buf, *starts = run_starts.buf;
    double *into = best.buf;
    int64_t *seen = counts.buf;
    m.exact = 1;
    for (int64_t i = 0; i < signatures.len / (Py_ssize_t)sizeof(double); i++)
        m.exact &= m.signature[i] == floor(m.signature[i]) && fabs(m.signature[i]) < 1e6;
    const char *fault = NULL;
    double probe[1];
    uint8_t zero[8] = {0};
    if (bands < 1 || bands > MOST_BANDS || m.signatures > MOST_STATISTICS || m.ratios > MOST_STATISTICS || !load(g.kind, zero, 1, 1, probe))
        fault = "bands, signatures or data type out of range";
    else if (signatures.len < m.signatures * bands * (Py_ssize_t)sizeof(double) ||
             offsets.len < grid_rows * grid_cols * g.planes * (Py_ssize_t)sizeof(int64_t) ||
             (g.planes != 1 && g.planes != bands) || best.len < count * width * (Py_ssize_t)sizeof(double) ||
             counts.len < count * 2 * (Py_ssize_t)sizeof(int64_t))
        fault = "a buffer is shorter than its shape";
    for (int64_t r = 0; !fault && r < 2 * m.ratios; r++)
        if (m.ratio_bands[r] < 0 || m.ratio_bands[r] >= bands)
            fault = "a ratio names a band that is not there";
    for (int64_t k = 0; !fault && k < count; k++)
        if (number[k] < 0 || number[k] >= polygons ||
            starts[number[k] + 1] * (Py_ssize_t)sizeof(run_t) > runs.len)
            fault = "a wanted polygon is not there";
    if (!fault) {
        const run_t *all = runs.buf;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t k = 0; k < count && !fault; k++)
            if (!fold_runs(&g, &m, all + starts[number[k]], all + starts[number[k] + 1], into + k * width, seen + 2 * k))
                fault = "the image's data end before a block does";
        Py_END_ALLOW_THREADS
    }
    if (fault)
        PyErr_SetString(PyExc_ValueError, fault);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&runs);
    PyBuffer_Release(&run_starts);
    PyBuffer_Release(&wanted);
    PyBuffer_Release(&ratio_bands);
    PyBuffer_Release(&signatures);
    PyBuffer_Release(&norms);
    PyBuffer_Release(&best);
    PyBuffer_Release(&counts);
    return fault ? NULL : Py_NewRef(Py_None);
}

/* ---- the horizontal predictor ------------------------------------------------------------------------------------- */

#define UNDO(TYPE)                                                                       \
    for (int64_t row = 0; row < rows; row++) {                                           \
        TYPE *values = (TYPE *)data + row * cols * bands;                                \
        for (int64_t i = bands; i < cols * bands; i++)                                   \
            values[i] = (TYPE)(values[i] + values[i - bands]);                           \
    }                                                                                    \
    break

static void undo(uint8_t *data, int size, int64_t rows, int64_t cols, int64_t bands)
{
    switch (size) {
    case 1: UNDO(uint8_t);
    case 2:
        if (bands == 8) { /* the common case: the eight sums stay in one register */
            for (int64_t row = 0; row < rows; row++) {
                uint16_t sum[8] = {0}, *values = (uint16_t *)data + row * cols * 8;
                for (int64_t i = 0; i < cols; i++, values += 8)
                    for (int b = 0; b < 8; b++)
                        values[b] = sum[b] = (uint16_t)(sum[b] + values[b]);
            }
            break;
        }
        UNDO(uint16_t);
    case 4: UNDO(uint32_t);
    case 8: UNDO(uint64_t);
    }
}

static const char undo_doc[] =
    "undo_differences(data, size, cols, bands) -> None\n\n"
    "Rows of cols x bands unsigned integers of `size` bytes, each the difference to the same band one column before,\n"
    "become values, in place.";

static PyObject *undo_differences(PyObject *self, PyObject *args)
{
    Py_buffer data;
    int size;
    long long cols, bands;
    (void)self;
    if (!PyArg_ParseTuple(args, "w*iLL", &data, &size, &cols, &bands))
        return NULL;
    int good = (size == 1 || size == 2 || size == 4 || size == 8) && cols > 0 && bands > 0 &&
               data.len % (size * cols * bands) == 0;
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        undo(data.buf, size, data.len / (size * cols * bands), cols, bands);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "data are not whole rows of integers of 1, 2, 4 or 8 bytes");
    }
    PyBuffer_Release(&data);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"polygon_runs", polygon_runs, METH_VARARGS, runs_doc},
    {"run_statistics", run_statistics, METH_VARARGS, statistics_doc},
    {"undo_differences", undo_differences, METH_VARARGS, undo_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&module);
}
