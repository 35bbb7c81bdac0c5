/* libcrypto as this package uses it: digests, AES-XTS, ECDSA verification, random bytes. */
#pragma once
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
