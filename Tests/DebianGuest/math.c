// The functions of libm over many arguments: one line for each, with a digest of all results bit by bit and of the
// exceptions that every call raised.
//
// usage: math COUNT [FUNCTION]    COUNT random arguments beside the special ones; with FUNCTION every call of it is shown
//
// What comes out does not depend on the processor, as long as the C library chooses the same variants of its functions:
// those with FMA and those without may differ in the last bit.
#define _GNU_SOURCE
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;
static uint64_t next(void)
{
    // splitmix64
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t digest;
static unsigned raised;
static int calls;
static const char *shown;
static const char *current;

static void take(const void *bytes, size_t count)
{
    uint64_t low = 0, high = 0;
    memcpy(&low, bytes, count < 8 ? count : 8);
    if (count > 8) memcpy(&high, (const char *)bytes + 8, count - 8);
    digest = (digest ^ low) * 0x9e3779b97f4a7c15;
    digest = ((digest ^ digest >> 29) ^ high) * 0xbf58476d1ce4e5b9;
    digest ^= digest >> 32;
    if (shown) printf(" %04llx%016llx", (unsigned long long)high, (unsigned long long)low);
}

static void before(void) { feclearexcept(FE_ALL_EXCEPT); }
static void after(void)
{
    unsigned exceptions = fetestexcept(FE_ALL_EXCEPT);
    raised |= exceptions;
    take(&exceptions, sizeof exceptions);
    calls++;
    if (shown) printf("\n");
}
static int start(const char *name)
{
    current = name;
    digest = raised = calls = 0;
    return !shown || !strcmp(shown, name);
}
static void finish(void) { printf("%-14s %8d calls %02x %016llx\n", current, calls, raised, (unsigned long long)digest); }

#define MAXIMUM 20000
static int count;
static float floats[MAXIMUM];
static double doubles[MAXIMUM];
static long double longs[MAXIMUM];

static void arguments(int wanted)
{
    static const double special[] = {
        0, 1, 0.5, 2, 3, 10, 0.1, 1.5, 2.5, 100, 709.5, 710, 745, 746, 88.5, 89, 1e10, 1e300, 4503599627370496.5,
        9007199254740993.0, 2147483647.5, 4294967295.0, 9.2233720368547758e18, 1.8446744073709552e19,
        0.78539816339744828, 1.5707963267948966, 3.1415926535897931, 6.2831853071795862, 1e22, 0.69314718055994529,
        2.7182818284590451, 1.4142135623730951, 0x1p-1074, 0x1p-1022, 0x0.fffffffffffffp-1022, 0x1p-149, 0x1p-126,
        0x1.fffffffffffffp1023, 0x1.fffffep127, 0x1p-53, 0x1p-52, 0x1.0000000000001p0, 0x1.fffffffffffffp-1, INFINITY,
    };
    seed = 2026;
    count = 0;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        for (int sign = 0; sign < 2; sign++, count++)
            longs[count] = doubles[count] = floats[count] = sign ? -special[i] : special[i];
    longs[count] = doubles[count] = floats[count] = NAN;
    count++;
    longs[count] = __builtin_nansl("0x1234");
    doubles[count] = __builtin_nans("0x1234");
    floats[count] = __builtin_nansf("0x1234");
    count++;
    for (int i = 0; i < wanted && count < MAXIMUM; i++, count++) {
        uint64_t bits = next(), more = next();
        if (i & 1) {
            // Any bits at all.
            uint32_t low = (uint32_t)bits;
            uint16_t exponent = (uint16_t)more;
            memcpy(&floats[count], &low, 4);
            memcpy(&doubles[count], &bits, 8);
            bits |= 1ull << 63;
            if (!(exponent & 0x7fff)) bits &= ~(1ull << 63);
            longs[count] = 0;
            memcpy(&longs[count], &bits, 8);
            memcpy((char *)&longs[count] + 8, &exponent, 2);
        } else {
            // Where the functions bend.
            doubles[count] = ((double)(int64_t)bits * 0x1p-63) * (i & 2 ? 2 : i & 4 ? 40 : 1000);
            floats[count] = (float)doubles[count];
            longs[count] = doubles[count] + (long double)(int64_t)more * 0x1p-120L;
        }
    }
}

#define ONE(type, values, function)                                                                                    \
    if (start(#function)) {                                                                                            \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile type x = values[i];                                                                               \
            before();                                                                                                  \
            volatile type y = function(x);                                                                             \
            after_##type((type *)&y);                                                                                  \
        }                                                                                                              \
        finish();                                                                                                      \
    }
#define TWO(type, values, function)                                                                                    \
    if (start(#function)) {                                                                                            \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile type x = values[i], z = values[(i * 7 + 3) % count];                                              \
            before();                                                                                                  \
            volatile type y = function(x, z);                                                                          \
            after_##type((type *)&y);                                                                                  \
        }                                                                                                              \
        finish();                                                                                                      \
    }
#define THREE(type, values, function)                                                                                  \
    if (start(#function)) {                                                                                            \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile type x = values[i], z = values[(i * 7 + 3) % count], w = values[(i * 11 + 5) % count];            \
            before();                                                                                                  \
            volatile type y = function(x, z, w);                                                                       \
            after_##type((type *)&y);                                                                                  \
        }                                                                                                              \
        finish();                                                                                                      \
    }
#define WHOLE(type, values, function)                                                                                  \
    if (start(#function)) {                                                                                            \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile type x = values[i];                                                                               \
            before();                                                                                                  \
            volatile long long y = function(x);                                                                        \
            take((void *)&y, sizeof y);                                                                                \
            after();                                                                                                   \
        }                                                                                                              \
        finish();                                                                                                      \
    }
#define PAIR(type, values, name, call)                                                                                 \
    if (start(name)) {                                                                                                 \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile type x = values[i];                                                                               \
            type y = 0, z = 0;                                                                                         \
            int n = 0;                                                                                                 \
            before();                                                                                                  \
            call;                                                                                                      \
            take(&n, sizeof n);                                                                                        \
            taken_##type(&z);                                                                                          \
            after_##type(&y);                                                                                          \
        }                                                                                                              \
        finish();                                                                                                      \
    }

typedef long double longdouble;
static void taken_float(float *value) { take(value, 4); }
static void taken_double(double *value) { take(value, 8); }
static void taken_longdouble(long double *value) { take(value, 10); }
static void after_float(float *value) { taken_float(value), after(); }
static void after_double(double *value) { taken_double(value), after(); }
static void after_longdouble(long double *value) { taken_longdouble(value), after(); }

// No instruction of the 8087 but loads, stores and arithmetic stands behind these.
#define PLAIN(T, v, s)                                                                                                 \
    ONE(T, v, sqrt##s) ONE(T, v, cbrt##s) ONE(T, v, ceil##s) ONE(T, v, floor##s) ONE(T, v, nearbyint##s)               \
    ONE(T, v, rint##s) ONE(T, v, round##s) ONE(T, v, roundeven##s) ONE(T, v, trunc##s) ONE(T, v, fabs##s)              \
    ONE(T, v, logb##s) WHOLE(T, v, lrint##s) WHOLE(T, v, llround##s) WHOLE(T, v, ilogb##s) TWO(T, v, fmod##s)          \
    TWO(T, v, remainder##s) TWO(T, v, hypot##s) TWO(T, v, fdim##s) TWO(T, v, fmax##s) TWO(T, v, fmin##s)               \
    TWO(T, v, nextafter##s) THREE(T, v, fma##s) PAIR(T, v, "frexp" #s, y = frexp##s(x, &n))                            \
    PAIR(T, v, "modf" #s, y = modf##s(x, &z)) PAIR(T, v, "remquo" #s, y = remquo##s(x, (T)0.7, &n); n &= 7)            \
    PAIR(T, v, "ldexp" #s, y = ldexp##s(x, i % 61 - 30)) PAIR(T, v, "scalbn" #s, y = scalbn##s(x, i * 37 % 4001 - 2000))

#define TRANSCENDENTAL(T, v, s)                                                                                        \
    ONE(T, v, acos##s) ONE(T, v, asin##s) ONE(T, v, atan##s) ONE(T, v, cos##s) ONE(T, v, sin##s) ONE(T, v, tan##s)     \
    ONE(T, v, acosh##s) ONE(T, v, asinh##s) ONE(T, v, atanh##s) ONE(T, v, cosh##s) ONE(T, v, sinh##s)                  \
    ONE(T, v, tanh##s) ONE(T, v, exp##s) ONE(T, v, exp2##s) ONE(T, v, exp10##s) ONE(T, v, expm1##s) ONE(T, v, log##s)  \
    ONE(T, v, log10##s) ONE(T, v, log1p##s) ONE(T, v, log2##s) ONE(T, v, erf##s) ONE(T, v, erfc##s)                    \
    ONE(T, v, lgamma##s) ONE(T, v, tgamma##s) ONE(T, v, j0##s) ONE(T, v, y1##s) TWO(T, v, atan2##s) TWO(T, v, pow##s)  \
    PAIR(T, v, "sincos" #s, sincos##s(x, &y, &z))

// Conversions and comparisons, as the compiler makes them.
static void conversions(void)
{
    if (start("convert")) {
        for (int i = 0; i < count; i++) {
            volatile double x = doubles[i];
            volatile float f = floats[i];
            volatile long double l = longs[i];
            before();
            volatile float a = (float)x;
            volatile double b = f, c = (double)l;
            volatile float d = (float)l;
            take((void *)&a, 4), take((void *)&b, 8), take((void *)&c, 8), take((void *)&d, 4);
            // In C only values in range are converted to integers; the instructions' answer is shown for all.
            long long n;
            int m;
            __asm__("cvttsd2si %1, %0" : "=r"(n) : "x"(x));
            take(&n, 8);
            __asm__("cvtsd2si %1, %0" : "=r"(m) : "x"(x));
            take(&m, 4);
            __asm__("cvtss2si %1, %0" : "=r"(n) : "x"(f));
            take(&n, 8);
            long long memory;
            __asm__("fistpll %0" : "=m"(memory) : "t"(l) : "st");
            take(&memory, 8);
            int order = (x < f) | (x <= f) << 1 | (x == f) << 2 | (x != f) << 3 | (l < x) << 4 | (l > f) << 5 |
                        !!isunordered(x, f) << 6 | !!isgreater(l, x) << 7;
            take(&order, 4);
            after();
        }
        finish();
    }
    if (start("text")) {
        for (int i = 0; i < count; i += 4) {
            char text[256] = "";
            before();
            int length = snprintf(text, sizeof text, "%a %.17g %.9g %.3f %.21Lg", doubles[i], doubles[i], floats[i],
                                  fmod(doubles[i], 1e6), longs[i]);
            for (int at = 0; at < length && at < 248; at += 8) take(text + at, 8);
            double back = strtod(strchr(text, ' '), NULL);
            take(&back, 8);
            long double far = strtold(strrchr(text, ' '), NULL);
            take(&far, 10);
            after();
        }
        finish();
    }
}

// The 8087's own FYL2X, F2XM1, FPATAN stand behind these, whose last bits each maker of processors chooses: how many results
// agree with those of the function for doubles.
#define NEAR(function)                                                                                                 \
    {                                                                                                                  \
        int near = 0;                                                                                                  \
        for (int i = 0; i < count; i++) {                                                                              \
            volatile double x = doubles[i];                                                                            \
            long double y = function##l((long double)x), z = function(x), error = fabsl(y - z);                        \
            near += (isnan(y) && isnan(z)) || (double)y == (double)z || error < 0x1p-45L * fabsl(z) || error < 1e-300L;\
        }                                                                                                              \
        printf("%-14s %8d of %d near\n", #function "l", near, count);                                                  \
    }
static void extended(void)
{
    NEAR(acos) NEAR(asin) NEAR(atan) NEAR(cos) NEAR(sin) NEAR(tan) NEAR(acosh) NEAR(asinh) NEAR(atanh) NEAR(cosh) NEAR(sinh)
    NEAR(tanh) NEAR(exp) NEAR(exp2) NEAR(exp10) NEAR(expm1) NEAR(log) NEAR(log10) NEAR(log1p) NEAR(log2) NEAR(erf)
    NEAR(erfc) NEAR(lgamma) NEAR(tgamma)
}

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 1000;
    shown = argc > 2 ? argv[2] : NULL;
    static const struct {
        int mode;
        const char *name;
    } modes[] = {{FE_TONEAREST, "to nearest"}, {FE_DOWNWARD, "down"}, {FE_UPWARD, "up"}, {FE_TOWARDZERO, "to zero"}};
    for (int i = 0; i < 4; i++) {
        arguments(i ? wanted / 4 : wanted);
        printf("rounding %s\n", modes[i].name);
        fesetround(modes[i].mode);
        PLAIN(float, floats, f)
        PLAIN(double, doubles, )
        PLAIN(longdouble, longs, l)
        conversions();
        TRANSCENDENTAL(float, floats, f)
        TRANSCENDENTAL(double, doubles, )
    }
    fesetround(FE_TONEAREST);
    arguments(wanted);
    if (!shown) extended();
    return 0;
}
