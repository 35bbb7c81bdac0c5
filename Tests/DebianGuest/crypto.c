// Every digest, cipher and authentication code of OpenSSL's providers over fixed inputs, and its public-key algorithms with
// fixed keys. Which code computes them depends on the processor and on OPENSSL_ia32cap; what comes out does not.
//
// usage: crypto [all]     all: also those that have one implementation only
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/objects.h>
#include <openssl/param_build.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char data[5000], first[5200], second[5200];
static int all;
static const size_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 255, 576, 1024, 1025, 4097};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static uint64_t digest;
static void begin(void) { digest = 0; }
static void take(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        digest = (digest ^ ((const unsigned char *)bytes)[i]) * 0x9e3779b97f4a7c15;
        digest ^= digest >> 29;
    }
}
// The providers list their algorithms in an order of their own: sorted at the end.
static char *lines[1000];
static int lineCount;
static void line(const char *kind, const char *name, const char *remark)
{
    char text[200];
    snprintf(text, sizeof text, "%s %s: %016llx %s", kind, name, (unsigned long long)digest, remark);
    if (lineCount < 1000) lines[lineCount++] = strdup(text);
}
static int order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void hash(EVP_MD *method, void *unused)
{
    (void)unused;
    begin();
    for (int i = 0; i < LENGTHS; i++) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        unsigned count = 0;
        int done = EVP_DigestInit_ex2(context, method, NULL);
        // In two parts, so that a block is unaligned and half full.
        done = done && EVP_DigestUpdate(context, data + 1, lengths[i] / 3) &&
               EVP_DigestUpdate(context, data + 1 + lengths[i] / 3, lengths[i] - lengths[i] / 3);
        done = done && EVP_MD_get_size(method) > 0 && EVP_DigestFinal_ex(context, first, &count);
        if (done) take(first, count);
        EVP_MD_CTX_free(context);
    }
    line("digest", EVP_MD_get0_name(method), "");
}

static void cipher(EVP_CIPHER *method, void *unused)
{
    (void)unused;
    int mode = EVP_CIPHER_get_mode(method), back = 0;
    unsigned long flags = EVP_CIPHER_get_flags(method);
    int tagged = (flags & EVP_CIPH_FLAG_AEAD_CIPHER) != 0;
    // Those for TLS records and keys want inputs of their own.
    if (mode == EVP_CIPH_WRAP_MODE || mode == EVP_CIPH_SIV_MODE || strstr(EVP_CIPHER_get0_name(method), "HMAC")) return;
    begin();
    // Long inputs for what has more than one implementation.
    const char *name = EVP_CIPHER_get0_name(method);
    int fast = (!strncmp(name, "AES", 3) || !strncmp(name, "ChaCha", 6)) && !strstr(name, "CFB1") && !strstr(name, "CFB8");
    if (!fast && !all) return;
    for (int i = 1; i < LENGTHS && (fast || lengths[i] < 256); i++) {
        int count = 0, more = 0, length = (int)lengths[i];
        if (mode == EVP_CIPH_XTS_MODE && length < 16) continue;
        unsigned char tag[16] = {0}, tag2[16];
        EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        EVP_EncryptInit_ex2(context, method, NULL, NULL, NULL);
        if (mode == EVP_CIPH_CCM_MODE) EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, NULL);
        // Two parts again, but where the mode wants all at once.
        int whole = mode == EVP_CIPH_XTS_MODE || mode == EVP_CIPH_CCM_MODE || flags & EVP_CIPH_FLAG_CTS;
        int part = whole ? length : length / 3;
        int done = EVP_EncryptInit_ex2(context, NULL, data + 100, data + 200, NULL);
        if (done && mode == EVP_CIPH_CCM_MODE) done = EVP_EncryptUpdate(context, NULL, &more, NULL, length);
        if (done && tagged) done = EVP_EncryptUpdate(context, NULL, &more, data, 77);
        done = done && EVP_EncryptUpdate(context, first, &count, data + 3, part);
        more = 0;
        if (part < length) done = done && EVP_EncryptUpdate(context, first + count, &more, data + 3 + part, length - part);
        count += more;
        more = 0;
        done = done && EVP_EncryptFinal_ex(context, first + count, &more);
        count += more;
        if (done && tagged) done = EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag);
        EVP_CIPHER_CTX_free(context);
        if (!done) continue;
        take(first, (size_t)count);
        take(tag, 16);

        int again = 0;
        context = EVP_CIPHER_CTX_new();
        memcpy(tag2, tag, 16);
        done = EVP_DecryptInit_ex2(context, method, NULL, NULL, NULL);
        if (tagged) EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, tag2);
        done = done && EVP_DecryptInit_ex2(context, NULL, data + 100, data + 200, NULL);
        if (done && mode == EVP_CIPH_CCM_MODE) done = EVP_DecryptUpdate(context, NULL, &more, NULL, length);
        if (done && tagged) done = EVP_DecryptUpdate(context, NULL, &more, data, 77);
        done = done && EVP_DecryptUpdate(context, second, &again, first, count);
        if (done && mode != EVP_CIPH_CCM_MODE) done = EVP_DecryptFinal_ex(context, second + again, &more), again += more;
        back += done && again == length && !memcmp(second, data + 3, (size_t)length);
        EVP_CIPHER_CTX_free(context);
    }
    char remark[32];
    snprintf(remark, sizeof remark, "%d back", back);
    line("cipher", name, remark);
}

static void mac(const char *name, const char *parameter, char *value, size_t keyLength)
{
    begin();
    EVP_MAC *method = EVP_MAC_fetch(NULL, name, NULL);
    for (int i = 0; i < LENGTHS; i++) {
        EVP_MAC_CTX *context = EVP_MAC_CTX_new(method);
        OSSL_PARAM parameters[3] = {OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end()};
        int at = 0;
        if (parameter) parameters[at++] = OSSL_PARAM_construct_utf8_string(parameter, value, 0);
        if (!strcmp(name, "GMAC")) parameters[at++] = OSSL_PARAM_construct_octet_string("iv", data + 500, 12);
        size_t count = 0;
        int done = EVP_MAC_init(context, data + 300, keyLength, parameters) &&
                   EVP_MAC_update(context, data + 5, lengths[i]) && EVP_MAC_final(context, first, &count, 64);
        if (done) take(first, count);
        EVP_MAC_CTX_free(context);
    }
    EVP_MAC_free(method);
    line("mac", name, value ? value : "");
}

static void derive(const char *name, char *hashName, uint64_t rounds)
{
    begin();
    EVP_KDF *method = EVP_KDF_fetch(NULL, name, NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(method);
    uint64_t n = 512;
    uint32_t r = 8, p = 2;
    OSSL_PARAM parameters[8];
    int at = 0;
    if (hashName) parameters[at++] = OSSL_PARAM_construct_utf8_string("digest", hashName, 0);
    parameters[at++] = OSSL_PARAM_construct_octet_string(strcmp(name, "HKDF") ? "pass" : "key", data + 700, 33);
    parameters[at++] = OSSL_PARAM_construct_octet_string("salt", data + 800, 16);
    if (rounds) parameters[at++] = OSSL_PARAM_construct_uint64("iter", &rounds);
    if (!strcmp(name, "SCRYPT")) {
        parameters[at++] = OSSL_PARAM_construct_uint64("n", &n);
        parameters[at++] = OSSL_PARAM_construct_uint32("r", &r);
        parameters[at++] = OSSL_PARAM_construct_uint32("p", &p);
    }
    parameters[at] = OSSL_PARAM_construct_end();
    int done = EVP_KDF_derive(context, first, 100, parameters);
    if (done > 0) take(first, 100);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(method);
    line("kdf", name, done > 0 ? "done" : "failed");
}

/// A prime of so many bits: digests of a name, then the number that has to be added, found once.
static BIGNUM *prime(const char *name, int bits, unsigned long offset)
{
    unsigned char bytes[256];
    for (int i = 0; i < bits / 8; i += 32) {
        unsigned count;
        snprintf((char *)first, 100, "%s %d", name, i);
        EVP_Digest(first, strlen((char *)first), bytes + i, &count, EVP_sha256(), NULL);
    }
    bytes[0] |= 0xc0;
    bytes[bits / 8 - 1] |= 1;
    BIGNUM *number = BN_bin2bn(bytes, bits / 8, NULL);
    BN_add_word(number, offset);
    return number;
}

static int sign(EVP_PKEY *key, const char *hashName, size_t *count)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    *count = 1000;
    int done = EVP_DigestSignInit_ex(context, NULL, hashName, NULL, NULL, key, NULL) &&
               EVP_DigestSign(context, first, count, data, 333);
    EVP_MD_CTX_free(context);
    return done;
}
static int verify(EVP_PKEY *key, const char *hashName, size_t count, int flip)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    data[20] ^= flip;
    int good = EVP_DigestVerifyInit_ex(context, NULL, hashName, NULL, NULL, key, NULL) &&
               EVP_DigestVerify(context, first, count, data, 333) == 1;
    data[20] ^= flip;
    EVP_MD_CTX_free(context);
    return good;
}

static EVP_PKEY *keyFrom(const char *type, OSSL_PARAM_BLD *builder)
{
    OSSL_PARAM *parameters = OSSL_PARAM_BLD_to_param(builder);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    if (EVP_PKEY_fromdata_init(context) != 1 || EVP_PKEY_fromdata(context, &key, EVP_PKEY_KEYPAIR, parameters) != 1)
        printf("cannot make a key: %s\n", type);
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(parameters);
    OSSL_PARAM_BLD_free(builder);
    return key;
}

static void rsa(int bits, unsigned long offsetP, unsigned long offsetQ)
{
    BN_CTX *context = BN_CTX_new();
    BIGNUM *p = prime("p", bits / 2, offsetP), *q = prime("q", bits / 2, offsetQ), *n = BN_new(), *d = BN_new();
    BIGNUM *e = BN_new(), *p1 = BN_dup(p), *q1 = BN_dup(q), *phi = BN_new(), *dp = BN_new(), *dq = BN_new();
    BIGNUM *inverse = BN_new();
    BN_set_word(e, 65537);
    BN_sub_word(p1, 1), BN_sub_word(q1, 1);
    BN_mul(n, p, q, context), BN_mul(phi, p1, q1, context);
    BN_mod_inverse(d, e, phi, context), BN_mod_inverse(inverse, q, p, context);
    BN_mod(dp, d, p1, context), BN_mod(dq, d, q1, context);
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    OSSL_PARAM_BLD_push_BN(builder, "n", n), OSSL_PARAM_BLD_push_BN(builder, "e", e);
    OSSL_PARAM_BLD_push_BN(builder, "d", d);
    OSSL_PARAM_BLD_push_BN(builder, "rsa-factor1", p), OSSL_PARAM_BLD_push_BN(builder, "rsa-factor2", q);
    OSSL_PARAM_BLD_push_BN(builder, "rsa-exponent1", dp), OSSL_PARAM_BLD_push_BN(builder, "rsa-exponent2", dq);
    OSSL_PARAM_BLD_push_BN(builder, "rsa-coefficient1", inverse);
    EVP_PKEY *key = keyFrom("RSA", builder);
    char remark[64], name[16];
    size_t count = 0;
    int made = key && sign(key, "SHA256", &count);
    begin();
    take(first, count);
    snprintf(remark, sizeof remark, "signed %d verified %d changed %d", made, verify(key, "SHA256", count, 0),
             verify(key, "SHA256", count, 1));
    snprintf(name, sizeof name, "%d", bits);
    line("rsa", name, remark);
    // The plain power, without the remainders: another code path, the same number.
    BIGNUM *result = BN_new();
    begin();
    BN_mod_exp_mont(result, p1, d, n, context, NULL);
    take(second, (size_t)BN_bn2bin(result, second));
    BN_mod_exp_mont_consttime(result, p1, d, n, context, NULL);
    take(second, (size_t)BN_bn2bin(result, second));
    BN_sqr(result, p1, context), BN_div(result, NULL, result, q1, context);
    take(second, (size_t)BN_bn2bin(result, second));
    line("power", name, "");
    EVP_PKEY_free(key);
    BN_CTX_free(context);
}

static void curve(char *name)
{
    BN_CTX *context = BN_CTX_new();
    EC_GROUP *group = EC_GROUP_new_by_curve_name(OBJ_txt2nid(name));
    BIGNUM *d = BN_new();
    BN_bin2bn(data + 900, (EC_GROUP_order_bits(group) - 1) / 8, d);
    EC_POINT *point = EC_POINT_new(group), *twice = EC_POINT_new(group);
    EC_POINT_mul(group, point, d, NULL, NULL, context);
    size_t count = EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, second, 300, context);
    begin();
    take(second, count);
    EC_POINT_mul(group, twice, d, point, d, context);
    take(second + 300, EC_POINT_point2oct(group, twice, POINT_CONVERSION_COMPRESSED, second + 300, 300, context));
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    OSSL_PARAM_BLD_push_utf8_string(builder, "group", name, 0);
    OSSL_PARAM_BLD_push_BN(builder, "priv", d);
    OSSL_PARAM_BLD_push_octet_string(builder, "pub", second, count);
    EVP_PKEY *key = keyFrom("EC", builder);
    char remark[64];
    int made = key && sign(key, "SHA384", &count);
    snprintf(remark, sizeof remark, "signed %d verified %d changed %d", made, verify(key, "SHA384", count, 0),
             verify(key, "SHA384", count, 1));
    EVP_PKEY_CTX *exchange = EVP_PKEY_CTX_new(key, NULL);
    count = 200;
    if (EVP_PKEY_derive_init(exchange) == 1 && EVP_PKEY_derive_set_peer(exchange, key) == 1 &&
        EVP_PKEY_derive(exchange, first, &count) == 1)
        take(first, count);
    line("curve", name, remark);
    EVP_PKEY_CTX_free(exchange);
    EVP_PKEY_free(key);
    EC_GROUP_free(group);
    BN_CTX_free(context);
}

static void edwards(const char *name, size_t length, int signs)
{
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key_ex(NULL, name, NULL, data + 1200, length);
    size_t count = 200;
    char remark[64] = "";
    begin();
    if (signs) {
        int made = sign(key, NULL, &count);
        take(first, count);
        snprintf(remark, sizeof remark, "signed %d verified %d changed %d", made, verify(key, NULL, count, 0),
                 verify(key, NULL, count, 1));
    } else {
        EVP_PKEY *other = EVP_PKEY_new_raw_private_key_ex(NULL, name, NULL, data + 1300, length);
        EVP_PKEY_CTX *exchange = EVP_PKEY_CTX_new(key, NULL);
        if (EVP_PKEY_derive_init(exchange) == 1 && EVP_PKEY_derive_set_peer(exchange, other) == 1 &&
            EVP_PKEY_derive(exchange, first, &count) == 1)
            take(first, count);
        EVP_PKEY_CTX_free(exchange);
        EVP_PKEY_free(other);
    }
    line("curve", name, remark);
    EVP_PKEY_free(key);
}

int main(int argc, char **argv)
{
    all = argc > 1 && !strcmp(argv[1], "all");
    uint64_t z = 2026;
    for (size_t i = 0; i < sizeof data; i++) z = z * 6364136223846793005 + 1442695040888963407, data[i] = (unsigned char)(z >> 56);
    printf("providers: %d\n", OSSL_PROVIDER_load(NULL, "default") && OSSL_PROVIDER_load(NULL, "legacy"));
    EVP_MD_do_all_provided(NULL, hash, NULL);
    EVP_CIPHER_do_all_provided(NULL, cipher, NULL);
    mac("HMAC", "digest", "SHA512", 40);
    mac("CMAC", "cipher", "AES-256-CBC", 32);
    mac("GMAC", "cipher", "AES-128-GCM", 16);
    mac("POLY1305", NULL, NULL, 32);
    mac("SIPHASH", NULL, NULL, 16);
    mac("KMAC-256", NULL, NULL, 32);
    mac("BLAKE2BMAC", NULL, NULL, 32);
    derive("PBKDF2", "SHA1", 300);
    derive("HKDF", "SHA256", 0);
    derive("SCRYPT", NULL, 0);
    rsa(1024, 542, 420);
    rsa(2048, 726, 154);
    curve("prime256v1");
    curve("secp384r1");
    curve("secp521r1");
    curve("secp256k1");
    if (all) curve("sect283r1");
    edwards("X25519", 32, 0);
    edwards("X448", 56, 0);
    edwards("ED25519", 32, 1);
    edwards("ED448", 57, 1);
    qsort(lines, (size_t)lineCount, sizeof *lines, order);
    for (int i = 0; i < lineCount; i++) puts(lines[i]);
    return 0;
}
