# Floats, integers of any length, decimals, and what else of Python rests on the processor's arithmetic.
import binascii, cmath, collections, decimal, fractions, hashlib, json, math, random, re, statistics, struct, sys, zlib

random.seed(2026)
digest = hashlib.sha256()


def show(name, value):
    print(name, value)
    digest.update(repr(value).encode())


# Integers.
a, b = 3**3000, 7**1200
show("power", hashlib.sha256(str(a * b).encode()).hexdigest())
show("quotient", divmod(a, b)[1] % 10**60)
show("modular", pow(5, 10**300, 10**90 + 7))
show("inverse", pow(12345, -1, 2**127 - 1))
show("factorial", sum(map(int, str(math.factorial(600)))))
show("root", math.isqrt(10**401))
show("gcd", math.gcd(math.factorial(60), 2**300 - 1))
show("shifts", hex(((1 << 777) - 12345) >> 333 & 2**200 - 1))
show("bits", sum(random.getrandbits(n).bit_count() for n in range(1, 600)))

# Floats.
values = [0.0, -0.0, 0.1, 1 / 3, 1e-310, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.pi, 2**53 + 1.0, 1e22, 1e23]
values += [random.uniform(-30, 30) for _ in range(60)] + [random.gauss(0, 1e100) for _ in range(40)]
values += [struct.unpack("<d", random.randbytes(8))[0] for _ in range(100)]
values = [x for x in values if x == x]
for name in ("sin cos tan exp expm1 log log1p log2 log10 sqrt cbrt erf erfc gamma lgamma atan asinh acosh atanh cosh "
             "tanh exp2 frexp modf ulp floor trunc").split():
    results = []
    for x in values:
        try:
            results.append(getattr(math, name)(x))
        except (ValueError, OverflowError) as error:
            results.append(type(error).__name__)
    show(name, hashlib.sha256(repr(results).encode()).hexdigest()[:24])
pairs = list(zip(values, values[5:] + values[:5]))
for name in "pow fmod atan2 hypot copysign nextafter remainder".split():
    results = []
    for x, y in pairs:
        try:
            results.append(getattr(math, name)(x, y))
        except (ValueError, OverflowError) as error:
            results.append(type(error).__name__)
    show(name, hashlib.sha256(repr(results).encode()).hexdigest()[:24])
finite = [x for x in values if abs(x) < 1e300]
show("fsum", math.fsum(finite))
show("sum", sum(finite[:70]))
show("hex", [x.hex() for x in values[:13]])
show("repr", hashlib.sha256(" ".join(map(repr, values)).encode()).hexdigest())
show("format", ["%.3e %g %f" % (x, x, min(abs(x), 1e9)) for x in values[:30]])
show("round", [round(x, n) for n, x in enumerate(values[13:33], -5)])
show("parsed", sum(float(repr(x)) == x for x in values))
show("ratio", hashlib.sha256(repr([x.as_integer_ratio() for x in finite]).encode()).hexdigest())
show("floor division", [x // 0.7 for x in values[13:30]])
show("half", struct.pack("<20e", *values[13:33]).hex())
show("single", struct.pack("<20f", *values[13:33]).hex())
show("complex", [cmath.exp(complex(x, y)) for x, y in pairs[14:24]] + [cmath.sqrt(complex(x, -y)) for x, y in pairs[14:24]])
show("statistics", [statistics.stdev(finite[13:60]), statistics.median(finite), statistics.fmean(finite[:50])])

# Decimals and fractions.
decimal.getcontext().prec = 200
show("decimal", [str(decimal.Decimal(2).sqrt()), str(decimal.Decimal(1).exp()), str(decimal.Decimal(10).ln())])
decimal.getcontext().prec = 2000
show("long decimal", hashlib.sha256(str(decimal.Decimal(3).sqrt() / 7).encode()).hexdigest())
show("fraction", sum((fractions.Fraction(1, n) for n in range(1, 200)), fractions.Fraction()))

# What rests on it.
show("random", [random.random() for _ in range(4)] + [random.randrange(10**30), random.sample(range(1000), 5)])
data = random.randbytes(100000)
show("crc", [zlib.crc32(data), zlib.adler32(data), binascii.crc_hqx(data, 5)])
for level in (1, 6, 9):
    packed = zlib.compress(data[:20000] * 3, level)
    show("zlib", [len(packed), hashlib.md5(packed).hexdigest(), zlib.decompress(packed) == data[:20000] * 3])
for name in sorted(hashlib.algorithms_guaranteed):
    method = hashlib.new(name, data)
    show(name, method.hexdigest(16) if name.startswith("shake") else method.hexdigest())
text = json.dumps({"values": values[:50], "nested": [{"n": n, "s": "ü" * n} for n in range(20)]})
show("json", [len(text), json.loads(text)["values"] == values[:50]])
words = collections.Counter(re.findall(r"\b[a-z]{3,}\b", open(json.__file__).read()))
show("words", words.most_common(5))
table = sorted(range(5000), key=lambda n: (n * 2654435761) % 2**32)
show("sorted", hashlib.sha256(str(table).encode()).hexdigest())
show("limits", [sys.float_info.max, sys.float_info.epsilon, sys.maxsize, sys.hash_info.modulus, hash(0.1), hash(10**40)])
show("digest", digest.hexdigest())
