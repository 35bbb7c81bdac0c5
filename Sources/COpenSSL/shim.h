/* libcrypto as this package uses it: digests, HMAC, AES-XTS and AES-CTR, big numbers, P-384, RSA, X.509, random bytes. */
#pragma once
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* Macros that Swift cannot read. */
static const int COpenSSL_publicKey = EVP_PKEY_PUBLIC_KEY;
static const int COpenSSL_keyPair = EVP_PKEY_KEYPAIR;
