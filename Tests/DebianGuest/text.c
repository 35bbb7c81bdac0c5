// The C library's functions on memory and strings, each over lengths, alignments and the end of a page, and each compared
// with a loop that does the same one byte after the other. Which variant the library takes depends on the processor and on
// GLIBC_TUNABLES; what comes out does not.
//
// usage: text [ROUNDS]
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <wchar.h>

static uint64_t seed = 2026;
static uint64_t next(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
static size_t below(size_t limit) { return next() % limit; }

static uint64_t digest;
static void take(uint64_t value)
{
    digest = (digest ^ value) * 0x9e3779b97f4a7c15;
    digest ^= digest >> 29;
}
static void takeAll(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) take(((const unsigned char *)bytes)[i]);
}

static int failures;
static void check(int right, const char *what, size_t length, size_t offset)
{
    if (right) return;
    if (failures++ < 20) printf("%s is wrong, length %zu, offset %zu\n", what, length, offset);
}

enum { SPAN = 3 * 4096 };
// Two spans of pages, and behind each one that nobody may touch.
static unsigned char *left, *right;
static unsigned char expected[SPAN];

static unsigned char *span(void)
{
    unsigned char *pages = mmap(NULL, SPAN + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + SPAN, 4096, PROT_NONE)) exit(2);
    return pages;
}

static void fill(unsigned char *at, size_t length, int letters)
{
    for (size_t i = 0; i < length; i++) at[i] = letters ? 'A' + below(letters) : (unsigned char)next();
}

static int sign(long value) { return (value > 0) - (value < 0); }

/// A place of so many bytes: at the end of the pages, or anywhere before.
static unsigned char *place(unsigned char *pages, size_t length)
{
    return pages + SPAN - length - (next() & 1 ? 0 : below(SPAN - length + 1 < 200 ? SPAN - length + 1 : 200));
}

static void moves(size_t length)
{
    unsigned char *from = place(left, length), *to = place(right, length);
    fill(from, length, 0);
    fill(to, length, 0);
    check(memcpy(to, from, length) == to && !memcmp(to, from, length), "memcpy", length, to - right);
    for (size_t i = 0; i < length; i++) check(to[i] == from[i], "memcpy", length, i);
    takeAll(to, length);

    // Overlapping, both ways.
    size_t distance = below(length / 2 + 70);
    if (length + distance <= SPAN) {
        unsigned char *low = right + SPAN - length - distance, *high = right + SPAN - length;
        fill(low, length + distance, 0);
        memcpy(expected, low, length + distance);
        check(mempcpy(expected, low, length) == expected + length, "mempcpy", length, 0);
        memmove(high, low, length);
        for (size_t i = 0; i < length; i++) check(high[i] == expected[i], "memmove up", length, i);
        fill(low, length + distance, 0);
        for (size_t i = 0; i < length; i++) expected[i] = high[i];
        memmove(low, high, length);
        for (size_t i = 0; i < length; i++) check(low[i] == expected[i], "memmove down", length, i);
        takeAll(low, length);
    }

    unsigned char value = (unsigned char)next();
    check(memset(to, value, length) == to, "memset", length, 0);
    for (size_t i = 0; i < length; i++) check(to[i] == value, "memset", length, i);
    explicit_bzero(to, length);
    for (size_t i = 0; i < length; i++) check(to[i] == 0, "explicit_bzero", length, i);
}

static void comparisons(size_t length)
{
    unsigned char *a = place(left, length), *b = place(right, length);
    fill(a, length, 3);
    memcpy(b, a, length);
    size_t where = length;
    if (length && next() & 3) b[where = below(length)] ^= (unsigned char)(1 + below(255));
    int want = where < length ? sign((int)a[where] - (int)b[where]) : 0;
    check(sign(memcmp(a, b, length)) == want, "memcmp", length, where);
    // As the compiler writes it where only equality matters.
    extern int __memcmpeq(const void *, const void *, size_t);
    check(!__memcmpeq(a, b, length) == !want, "memcmpeq", length, where);
    unsigned char wanted = length ? a[below(length)] : 'A';
    size_t first = 0, last = length;
    while (first < length && a[first] != wanted) first++;
    while (last > 0 && a[last - 1] != wanted) last--;
    void *none = NULL;
    check(memchr(a, wanted, length) == (first < length ? a + first : none), "memchr", length, first);
    check(memrchr(a, wanted, length) == (last ? a + last - 1 : none), "memrchr", length, last);
    if (first < length) check(rawmemchr(a, wanted) == a + first, "rawmemchr", length, first);
    size_t needle = below(6), hit = 0;
    if (needle <= length) {
        size_t from = below(length - needle + 1);
        while (memcmp(a + hit, a + from, needle)) hit++;
        check(memmem(a, length, a + from, needle) == a + hit, "memmem", length, hit);
    }
    take(want + 4 * first + 65536 * last + (uint64_t)hit * 0x100000000);
}

static void strings(size_t length)
{
    char *a = (char *)place(left, length + 1), *b = (char *)place(right, length + 1);
    fill((unsigned char *)a, length, 26);
    a[length] = 0;
    check(strlen(a) == length, "strlen", length, 0);
    size_t limit = below(length + 2);
    check(strnlen(a, limit) == (limit < length ? limit : length), "strnlen", length, limit);
    check(strcpy(b, a) == b && !strcmp(b, a), "strcpy", length, 0);
    for (size_t i = 0; i <= length; i++) check(b[i] == a[i], "strcpy", length, i);
    memset(b, '#', length);
    check(stpcpy(b, a) == b + length && !memcmp(b, a, length + 1), "stpcpy", length, 0);
    memset(b, '#', length);
    check(stpncpy(b, a, limit) == b + (limit < length ? limit : length), "stpncpy", length, limit);
    for (size_t i = 0; i < limit && i <= length; i++) check(b[i] == a[i], "stpncpy", length, i);
    memset(b, '#', length + 1);
    strncpy(b, a, length + 1);
    check(!memcmp(a, b, length + 1), "strncpy", length, 0);
    b[0] = 0;
    check(strcat(b, a) == b && !memcmp(a, b, length + 1), "strcat", length, 0);
    size_t half = length / 2;
    b[half] = 0;
    check(strncat(b, a + half, length - half) == b && !memcmp(a, b, length + 1), "strncat", length, half);

    char wanted = (char)('A' + below(27));
    char *first = NULL, *last = NULL;
    for (size_t i = 0; i < length; i++)
        if (a[i] == wanted) last = a + i, first = first ? first : a + i;
    check(strchr(a, wanted) == first, "strchr", length, wanted);
    check(strrchr(a, wanted) == last, "strrchr", length, wanted);
    check(strchrnul(a, wanted) == (first ? first : a + length), "strchrnul", length, wanted);
    check(strchr(a, 0) == a + length && strrchr(a, 0) == a + length, "strchr of the end", length, 0);

    size_t where = length;
    if (length && next() & 3) {
        where = below(length);
        b[where] = (char)(next() | 1);
    }
    int want = where < length ? sign((int)(unsigned char)a[where] - (int)(unsigned char)b[where]) : 0;
    check(sign(strcmp(a, b)) == want, "strcmp", length, where);
    check(sign(strncmp(a, b, limit)) == (where < limit ? want : 0), "strncmp", length, where);
    if (where < length) b[where] = (char)(a[where] ^ 0x20);
    check(strcasecmp(a, b) == 0 && strncasecmp(a, b, limit) == 0, "strcasecmp", length, where);
    if (where < length) b[where] = '~';
    check(sign(strcasecmp(a, b)) == (where < length ? -1 : 0), "strcasecmp", length, where);

    char set[20];
    size_t members = 1 + below(18), run = 0, until = 0;
    for (size_t i = 0; i < members; i++) set[i] = (char)('A' + below(26));
    set[members] = 0;
#define IN(c) (memchr(set, c, members) != NULL)
    while (run < length && IN(a[run])) run++;
    while (until < length && !IN(a[until])) until++;
    check(strspn(a, set) == run, "strspn", length, run);
    check(strcspn(a, set) == until, "strcspn", length, until);
    check(strpbrk(a, set) == (until < length ? a + until : NULL), "strpbrk", length, until);
    size_t needle = length ? below(length < 40 ? length : 40) + 1 : 0, from = below(length - needle + 1), hit = 0;
    char word[48] = "";
    memcpy(word, a + from, needle);
    while (memcmp(a + hit, word, needle)) hit++;
    check(strstr(a, word) == a + hit && strcasestr(a, word) == a + hit, "strstr", length, hit);
    word[needle] = '~', word[needle + 1] = 0;
    check(strstr(a, word) == NULL, "strstr of what is not there", length, needle);
    take(run + 256 * until + 65536 * hit + (uint64_t)(where + 2 + want) * 0x100000000);
}

static void wide(size_t length)
{
    wchar_t *a = (wchar_t *)left + SPAN / 4 - length - 1, *b = (wchar_t *)right + SPAN / 4 - length - 1;
    for (size_t i = 0; i < length; i++) a[i] = (wchar_t)(0x3b1 + below(40));
    a[length] = 0;
    check(wcslen(a) == length, "wcslen", length, 0);
    check(wcsnlen(a, length / 2) == length / 2, "wcsnlen", length, 0);
    check(wcscpy(b, a) == b && !wcscmp(a, b) && !wmemcmp(a, b, length + 1), "wcscpy", length, 0);
    wchar_t wanted = (wchar_t)(0x3b1 + below(41));
    wchar_t *first = NULL, *last = NULL;
    for (size_t i = 0; i < length; i++)
        if (a[i] == wanted) last = a + i, first = first ? first : a + i;
    check(wcschr(a, wanted) == first, "wcschr", length, 0);
    check(wcsrchr(a, wanted) == last, "wcsrchr", length, 0);
    check(wmemchr(a, wanted, length) == first, "wmemchr", length, 0);
    size_t where = length ? below(length) : 0;
    if (length) {
        b[where] = (wchar_t)-5;
        check(wcscmp(a, b) > 0 && wcsncmp(a, b, where) == 0 && wmemcmp(b, a, length) < 0, "wcscmp", length, where);
    }
    wmemset(b, wanted, length);
    for (size_t i = 0; i < length; i++) check(b[i] == wanted, "wmemset", length, i);
    take(where + (first ? first - a : 999) * 1000ull + (last ? last - a : 999) * 1000000ull);
}

int main(int argc, char **argv)
{
    left = span(), right = span();
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    for (int round = 0; round < rounds; round++) {
        for (size_t length = 0; length < 300; length += 1 + (length > 140) * below(9)) {
            moves(length), comparisons(length), strings(length), wide(length);
        }
        for (int i = 0; i < 6; i++) {
            size_t length = 300 + below(SPAN - 301);
            moves(length), comparisons(length), strings(length / 3), wide(length / 8);
        }
    }
    // Longer than any cache: the library writes around it.
    size_t large = 3 << 20;
    unsigned char *from = malloc(large), *to = malloc(large + 64);
    if (!from || !to) return 2;
    for (size_t i = 0; i < large; i += 8) *(uint64_t *)(from + i) = next();
    for (size_t offset = 0; offset < 40; offset += 13) {
        memcpy(to + offset, from, large);
        for (size_t i = 0; i < large; i += 509) check(to[offset + i] == from[i], "memcpy", large, i);
        memmove(to + offset + 5, to + offset, large - 5);
        check(!memcmp(to + offset + 5, from, large - 5), "memmove", large, offset);
        takeAll(to + large - 100, 100);
    }
    printf("%d wrong, %016llx\n", failures, (unsigned long long)digest);
    return failures != 0;
}
