/* Loops over the voxels of a volume that numpy and OpenCV take several passes for. Results are
 * those of the Python beside them (runs.py, intensity.py), to the last bit, which also runs where
 * no C compiler was found at installation. No allocation, no global state.
 */
#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Eight voxels at once where the processor can, found out when the library is loaded. */
#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Raised with every change: `native.py` refuses a library of another number. */
#define VERSION 1

EXPORT int32_t sammed_version(void) { return VERSION; }

/* How often each 16-bit pattern stands among n values, added to four tables of 65,536: equal
 * neighbours, which images are full of, do not wait for each other. */
EXPORT void sammed_counts(const uint16_t *values, int64_t n, uint32_t *tables) {
  uint32_t *a = tables, *b = a + 65536, *c = b + 65536, *d = c + 65536;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    a[values[i]]++;
    b[values[i + 1]]++;
    c[values[i + 2]]++;
    d[values[i + 3]]++;
  }
  for (; i < n; i++) a[values[i]]++;
}

/* 0 .. 255 of (values - low) * scale, clipped and rounded to even as `_scaled` of intensity.py
 * does it: adding 1.5 * 2^23 leaves the rounded number in the low bits of the float. */
#define WINDOW(name, kind)                                                                     \
  WIDE EXPORT void name(const kind *restrict values, int64_t n, float low, float scale,        \
                        uint8_t *restrict out) {                                               \
    for (int64_t i = 0; i < n; i++) {                                                          \
      float value = ((float)values[i] - low) * scale;                                          \
      value = value < 0.0f ? 0.0f : value;                                                     \
      value = value > 255.0f ? 255.0f : value;                                                 \
      value += 12582912.0f;                                                                    \
      int32_t bits;                                                                            \
      memcpy(&bits, &value, 4);                                                                \
      out[i] = (uint8_t)bits;                                                                  \
    }                                                                                          \
  }
WINDOW(sammed_window_i2, int16_t)
WINDOW(sammed_window_u2, uint16_t)

/* The end of the stretch of `value` that goes on at x. */
static int64_t run_end(const uint8_t *row, int64_t x, int64_t width, uint8_t value) {
  const uint64_t same = value * UINT64_C(0x0101010101010101);
  while (x + 8 <= width) {
    uint64_t eight;
    memcpy(&eight, row + x, 8);
    if (eight != same) {
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      return x + (__builtin_ctzll(eight ^ same) >> 3);
#else
      break;
#endif
    }
    x += 8;
  }
  while (x < width && row[x] == value) x++;
  return x;
}

/* Stretches of one value other than 0 along the rows of planes of bytes. ends[z]: how many there
 * are in the planes 0 .. z. Returns their number, or -1 where they are more than `room`. */
EXPORT int64_t sammed_runs(const uint8_t *pixels, int64_t depth, int64_t height, int64_t width,
                           int64_t room, uint8_t *value, int32_t *y, int32_t *start,
                           int32_t *stop, int64_t *ends) {
  int64_t n = 0;
  for (int64_t z = 0; z < depth; z++) {
    for (int64_t r = 0; r < height; r++, pixels += width) {
      for (int64_t x = 0, end; x < width; x = end) {
        end = run_end(pixels, x + 1, width, pixels[x]);
        if (!pixels[x]) continue;
        if (n == room) return -1;
        value[n] = pixels[x];
        y[n] = (int32_t)r;
        start[n] = (int32_t)x;
        stop[n] = (int32_t)end;
        n++;
      }
    }
    ends[z] = n;
  }
  return n;
}

typedef struct {
  int32_t plane, value, left, top, right, bottom, area, components;
} Region;

static int32_t tree_of(int32_t *parent, int32_t run) {
  while (parent[run] != run) run = parent[run] = parent[parent[run]];
  return run;
}

/* Joins the trees of runs that touch, corners included, and have one value. */
static void join_rows(const uint8_t *value, const int32_t *y, const int32_t *start,
                      const int32_t *stop, int64_t n, int32_t *parent) {
  int64_t above = 0, row = 0; /* first runs that matter of the row before, and of this one */
  for (int64_t i = 0; i < n; i++) {
    parent[i] = (int32_t)i;
    if (y[i] != y[row]) {
      above = row;
      row = i;
      if (y[above] + 1 != y[i]) above = row;
    }
    while (above < row && stop[above] < start[i]) above++;
    for (int64_t j = above; j < row && start[j] <= stop[i]; j++) {
      if (value[j] != value[i]) continue;
      int32_t one = tree_of(parent, (int32_t)i), other = tree_of(parent, (int32_t)j);
      if (one < other) parent[other] = one;
      else parent[one] = other;
    }
  }
}

/* Every value of each plane as a region, ascending within a plane; boxes are half-open. The runs
 * of plane z are those from ends[z - 1] to ends[z]. parent: room for the runs of a plane, or null
 * where components are not counted. found: room for 255 regions a plane. Returns their number. */
EXPORT int64_t sammed_regions(const uint8_t *value, const int32_t *y, const int32_t *start,
                              const int32_t *stop, const int64_t *ends, int64_t depth,
                              int32_t *parent, Region *found) {
  int64_t n_found = 0;
  for (int64_t z = 0, first = 0; z < depth; first = ends[z++]) {
    Region by_value[256];
    int64_t n = ends[z] - first;
    memset(by_value, 0, sizeof by_value);
    if (parent) join_rows(value + first, y + first, start + first, stop + first, n, parent);
    for (int64_t i = first; i < ends[z]; i++) {
      Region *region = &by_value[value[i]];
      if (!region->area) {
        region->left = start[i];
        region->top = y[i];
      }
      if (start[i] < region->left) region->left = start[i];
      if (stop[i] > region->right) region->right = stop[i];
      region->bottom = y[i] + 1;
      region->area += stop[i] - start[i];
      if (parent && parent[i - first] == i - first) region->components++;
    }
    for (int32_t v = 1; v < 256; v++) {
      if (!by_value[v].area) continue;
      by_value[v].plane = (int32_t)z;
      by_value[v].value = v;
      found[n_found++] = by_value[v];
    }
  }
  return n_found;
}

static void set_bits(uint8_t *row, int64_t from, int64_t to) {
  uint8_t head = 0xFF >> (from & 7), tail = (uint8_t)(0xFF00 >> (((to - 1) & 7) + 1));
  int64_t first = from >> 3, last = (to - 1) >> 3;
  if (first == last) {
    row[first] |= head & tail;
    return;
  }
  row[first] |= head;
  memset(row + first + 1, 0xFF, (size_t)(last - first - 1));
  row[last] |= tail;
}

/* The bits of each region, rows of its box after each other, the highest bit leftmost; the first
 * byte of a row begins at a column that 8 divides. Boxes lie as stored: rows (columns) backwards
 * where asked. offset: where the bits of each region begin in `bits`, which is blank. */
EXPORT void sammed_bits(const uint8_t *value, const int32_t *y, const int32_t *start,
                        const int32_t *stop, const int64_t *ends, int64_t height, int64_t width,
                        int32_t back_y, int32_t back_x, const Region *found, int64_t n_found,
                        const int64_t *offset, uint8_t *bits) {
  for (int64_t k = 0; k < n_found;) {
    int32_t plane = found[k].plane;
    int64_t at[256] = {0};
    for (; k < n_found && found[k].plane == plane; k++) at[found[k].value] = k;
    for (int64_t i = plane ? ends[plane - 1] : 0; i < ends[plane]; i++) {
      const Region *region = &found[at[value[i]]];
      int64_t left = region->left - region->left % 8;
      int64_t bytes = (region->right - left + 7) / 8;
      int64_t row = (back_y ? height - 1 - y[i] : y[i]) - region->top;
      int64_t from = back_x ? width - stop[i] : start[i];
      set_bits(bits + offset[at[value[i]]] + row * bytes, from - left,
               from - left + stop[i] - start[i]);
    }
  }
}
