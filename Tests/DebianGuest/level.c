// A library that the dynamic loader has in two versions: for any x86-64 processor, and for x86-64-v3 below glibc-hwcaps. It
// says which one it is, and computes what compilers make of AVX2, FMA, BMI and MOVBE.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t state = 2026;
static uint64_t next(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

enum { COUNT = 4096 };
static double x[COUNT], y[COUNT], z[COUNT];
static float a[COUNT], b[COUNT], c[COUNT];
static uint32_t u[COUNT], v[COUNT];
static int16_t s[COUNT], t[COUNT];
static uint8_t bytes[COUNT], others[COUNT];

static uint64_t digest(const void *data, size_t count)
{
    uint64_t value = 0, word;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        memcpy(&word, (const char *)data + i, 8);
        value = (value ^ word) * 0x9e3779b97f4a7c15;
        value ^= value >> 29;
    }
    return value;
}
#define SHOW(what, array) printf("  %-20s %016llx\n", what, (unsigned long long)digest(array, sizeof array))

static void matrices(void)
{
    static double product[64][64];
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            double sum = 0;
            for (int k = 0; k < 64; k++) sum += x[i * 64 + k] * y[k * 64 + j];
            product[i][j] = sum;
        }
    SHOW("matrix", product);
}

void level(void)
{
#if defined __AVX2__ && defined __FMA__ && defined __BMI2__ && defined __MOVBE__ && defined __LZCNT__
    puts("the library for x86-64-v3:");
#else
    puts("the library for x86-64:");
#endif
    for (int i = 0; i < COUNT; i++) {
        uint64_t bits = next();
        x[i] = (double)(int64_t)bits * 0x1p-60, y[i] = (double)(bits >> 11) * 0x1p-50;
        a[i] = (float)x[i], b[i] = (float)y[i] + 0.5f;
        u[i] = (uint32_t)bits, v[i] = (uint32_t)(bits >> 32);
        s[i] = (int16_t)bits, t[i] = (int16_t)(bits >> 16), bytes[i] = (uint8_t)(bits >> 8), others[i] = (uint8_t)(bits >> 24);
    }
    for (int i = 0; i < COUNT; i++) z[i] = x[i] * y[i] + x[COUNT - 1 - i];
    SHOW("multiply and add", z);
    for (int i = 0; i < COUNT; i++) z[i] = sqrt(fabs(x[i])) / (y[i] + 1) - floor(x[i]);
    SHOW("root", z);
    for (int i = 0; i < COUNT; i++) c[i] = a[i] > b[i] ? a[i] / b[i] : a[i] * b[i] - a[(i * 5) % COUNT];
    SHOW("choose", c);
    for (int i = 0; i < COUNT; i++) c[i] = (float)x[i] + (float)(int)u[i] + (float)s[i];
    SHOW("narrow", c);
    for (int i = 0; i < COUNT; i++) z[i] = (double)a[i] + (double)(int)v[i] + (double)bytes[i];
    SHOW("widen", z);
    for (int i = 0; i < COUNT; i++) v[i] = (uint32_t)(int)(x[i] * 1000);
    SHOW("truncate", v);
    for (int i = 0; i < COUNT; i++) v[i] = u[i] * 2654435761u + (v[i] >> (u[i] & 31)) - (v[i] << (i & 31));
    SHOW("shift", v);
    for (int i = 0; i < COUNT; i++) v[i] = u[v[i] % COUNT] ^ v[(u[i] >> 7) % COUNT];
    SHOW("gather", v);
    for (int i = 0; i < COUNT; i++) t[i] = (int16_t)((s[i] * t[i]) >> 16) > s[i] ? s[i] : (int16_t)(t[i] - s[i]);
    SHOW("words", t);
    for (int i = 0; i < COUNT; i++) {
        int sum = bytes[i] + others[i];
        others[i] = (uint8_t)(sum > 255 ? 255 : sum) > bytes[i] ? (bytes[i] + others[i] + 1) / 2 : others[i];
    }
    SHOW("bytes", others);
    for (int i = 0; i < COUNT; i++) {
        uint64_t wide = (uint64_t)u[i] << 32 | v[i];
        wide = __builtin_bswap64(wide) ^ (wide & -wide) ^ (wide & (wide - 1)) ^ (wide << (u[i] & 63) | wide >> (63 & -u[i]));
        v[i] = (uint32_t)(__builtin_popcountll(wide) + 64 * __builtin_clzll(wide | 1) + 4096 * __builtin_ctzll(wide | 1ull << 63)) ^
               (uint32_t)(((unsigned __int128)wide * u[i]) >> 64);
    }
    SHOW("bits", v);
    matrices();
}
