// The functions of libmvec, by each of their names: of two doubles or four floats with SSE2 or SSE4, of four or eight with
// AVX and with AVX2. They promise four units in the last place, and some begin with RCPPS or RSQRTPS, whose bits each maker of
// processors chooses: so what is printed is how many results agree with the C library's function for one number.
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>

typedef double double2 __attribute__((vector_size(16)));
typedef double double4 __attribute__((vector_size(32)));
typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));

enum { COUNT = 240 };
static double doubles[COUNT] __attribute__((aligned(32)));
static float floats[COUNT] __attribute__((aligned(32)));

static int near(double y, double z, double bound)
{
    return (isnan(y) && isnan(z)) || y == z || fabs(y - z) <= bound * fabs(z);
}
static void show(const char *name, int agree) { printf("%-16s %d of %d\n", name, agree, COUNT); }

#define ONE(vector, lanes, values, bound, function, scalar)                                                            \
    vector function(vector);                                                                                           \
    static void run_##function(void)                                                                                   \
    {                                                                                                                  \
        int agree = 0;                                                                                                 \
        for (int i = 0; i + lanes <= COUNT; i += lanes) {                                                              \
            vector x = *(vector *)(values + i);                                                                        \
            x = function(x);                                                                                           \
            for (int k = 0; k < lanes; k++) agree += near(x[k], scalar(values[i + k]), bound);                         \
        }                                                                                                              \
        show(#function, agree);                                                                                        \
    }
#define TWO(vector, lanes, values, bound, function, scalar)                                                            \
    vector function(vector, vector);                                                                                   \
    static void run_##function(void)                                                                                   \
    {                                                                                                                  \
        int agree = 0;                                                                                                 \
        for (int i = 0; i + lanes <= COUNT; i += lanes) {                                                              \
            int j = (i + 80) % COUNT;                                                                                  \
            vector x = *(vector *)(values + i), y = *(vector *)(values + j);                                           \
            x = function(x, y);                                                                                        \
            for (int k = 0; k < lanes; k++) agree += near(x[k], scalar(values[i + k], values[j + k]), bound);          \
        }                                                                                                              \
        show(#function, agree);                                                                                        \
    }

#define EACH(ONE, TWO, v, l, a, e, p, s)                                                                               \
    ONE(v, l, a, e, p##v_acos##s, acos##s) ONE(v, l, a, e, p##v_acosh##s, acosh##s)                                    \
    ONE(v, l, a, e, p##v_asin##s, asin##s) ONE(v, l, a, e, p##v_asinh##s, asinh##s)                                    \
    ONE(v, l, a, e, p##v_atan##s, atan##s) ONE(v, l, a, e, p##v_atanh##s, atanh##s)                                    \
    ONE(v, l, a, e, p##v_cbrt##s, cbrt##s) ONE(v, l, a, e, p##v_cos##s, cos##s)                                        \
    ONE(v, l, a, e, p##v_cosh##s, cosh##s) ONE(v, l, a, e, p##v_erf##s, erf##s)                                        \
    ONE(v, l, a, e, p##v_erfc##s, erfc##s) ONE(v, l, a, e, p##v_exp##s, exp##s)                                        \
    ONE(v, l, a, e, p##v_exp10##s, exp10##s) ONE(v, l, a, e, p##v_exp2##s, exp2##s)                                    \
    ONE(v, l, a, e, p##v_expm1##s, expm1##s) ONE(v, l, a, e, p##v_log##s, log##s)                                      \
    ONE(v, l, a, e, p##v_log10##s, log10##s) ONE(v, l, a, e, p##v_log1p##s, log1p##s)                                  \
    ONE(v, l, a, e, p##v_log2##s, log2##s) ONE(v, l, a, e, p##v_sin##s, sin##s)                                        \
    ONE(v, l, a, e, p##v_sinh##s, sinh##s) ONE(v, l, a, e, p##v_tan##s, tan##s)                                        \
    ONE(v, l, a, e, p##v_tanh##s, tanh##s) TWO(v, l, a, e, p##vv_atan2##s, atan2##s)                                   \
    TWO(v, l, a, e, p##vv_hypot##s, hypot##s) TWO(v, l, a, e, p##vv_pow##s, pow##s)
#define ALL(ONE, TWO)                                                                                                  \
    EACH(ONE, TWO, double2, 2, doubles, 0x1p-45, _ZGVbN2, )                                                            \
    EACH(ONE, TWO, float4, 4, floats, 0x1p-18, _ZGVbN4, f)                                                             \
    EACH(ONE, TWO, double4, 4, doubles, 0x1p-45, _ZGVcN4, )                                                            \
    EACH(ONE, TWO, float8, 8, floats, 0x1p-18, _ZGVcN8, f)                                                             \
    EACH(ONE, TWO, double4, 4, doubles, 0x1p-45, _ZGVdN4, )                                                            \
    EACH(ONE, TWO, float8, 8, floats, 0x1p-18, _ZGVdN8, f)
ALL(ONE, TWO)
#define CALL(vector, lanes, values, bound, function, scalar) run_##function();

int main(void)
{
    static const double special[] = {0, -0.0, 1, -1, 0.5, 1e-300, -1e-310, 1e300, -745, 709.9, 1e22, 88.8, -0.999999};
    uint64_t z = 2026;
    for (int i = 0; i < COUNT; i++) {
        z = z * 6364136223846793005 + 1442695040888963407;
        double value = (double)(int64_t)z * 0x1p-63;
        doubles[i] = i < 13 ? special[i] : i == 13 ? __builtin_inf() : i == 14 ? __builtin_nan("") : value * (i & 1 ? 1 : i & 2 ? 30 : 900);
        floats[i] = (float)doubles[i];
    }
    ALL(CALL, CALL)
    return 0;
}
