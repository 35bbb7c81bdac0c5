#!/usr/bin/env python3
"""Writes ../Generated/Handlers.swift: one C-convention function per specialised uop, and the table the decoder indexes.

Run it after changing a family below; the output is checked in. A family is an n-dimensional array of handlers; the
decoder computes `base + index`, with the last dimension varying fastest. Flag-writing families end in a dimension
[live, dead], so that an index plus one is the same operation without its flags.
"""
import itertools, os

SIZES = ["8", "16", "32", "64"]
FLAGS = ["f", "n"]
ALU = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]
SHIFT = ["rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"]
CC = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]
W = {n: f"UInt{n}.self" for n in SIZES}
B = {"f": "true", "n": "false"}
# In the order of `VectorOperation`.
VECTOR = """punpcklbw punpcklwd punpckldq packsswb pcmpgtb pcmpgtw pcmpgtd packuswb punpckhbw punpckhwd punpckhdq packssdw
punpcklqdq punpckhqdq pcmpeqb pcmpeqw pcmpeqd psrlw psrld psrlq paddq pmullw psubusb psubusw pminub pand paddusb paddusw
pmaxub pandn pavgb psraw psrad pavgw pmulhuw pmulhw psubsb psubsw pminsw por paddsb paddsw pmaxsw pxor psllw pslld psllq
pmuludq pmaddwd psadbw psubb psubw psubd psubq paddb paddw paddd movss movsd movhlps movlhps movdqa""".split()
VECTOR_SHIFT = ["psrlw", "psraw", "psllw", "psrld", "psrad", "pslld", "psrlq", "psllq"]
# In the order of `HostLane`.
HOST_LANE = """pshufb aesenc aesenclast aesdec aesdeclast aesimc pclmulqdq sha1nexte sha1msg1 sha1msg2 sha256msg1
sha256msg2 sha1rnds4 sha256rnds2""".split()
FLOAT = ["add", "mul", "sub", "min", "div", "max", "sqrt"]
FLOAT_TYPE = ["ps", "pd", "ss", "sd"]
FORM = {"sse": "vex: false, wide: false", "128": "vex: true, wide: false", "256": "vex: true, wide: true"}
TRUE = {"sd": "true", "ss": "false", "64": "true", "32": "false", "vex": "true", "sse": "false"}
FAR = {"near": "false", "far": "true"}
ALIGN = {"128": "none", "128a": "always", "128o": "operand", "256": "none", "256a": "always"}
VEX_WIDTH = ["8", "16", "32", "64", "128", "128a", "256", "256a"]
NF = ["near", "far"]


def flags(op, f):  # these need their flags always
    return "true" if op in ("adc", "sbb", "cmp") else B[f]


families = [
    ("aluRR", [ALU, SIZES, FLAGS], lambda o, w, f: f"aluRR(s, ip, .{o}, {W[w]}, flags: {flags(o, f)})"),
    ("aluRI", [ALU, SIZES, FLAGS], lambda o, w, f: f"aluRI(s, ip, .{o}, {W[w]}, flags: {flags(o, f)})"),
    ("aluRM", [ALU, SIZES, FLAGS], lambda o, w, f: f"aluRM(s, ip, .{o}, {W[w]}, flags: {flags(o, f)})"),
    ("aluMR", [ALU, SIZES, FLAGS], lambda o, w, f: f"aluM(s, ip, .{o}, {W[w]}, immediate: false, flags: {flags(o, f)})"),
    ("aluMI", [ALU, SIZES, FLAGS], lambda o, w, f: f"aluM(s, ip, .{o}, {W[w]}, immediate: true, flags: {flags(o, f)})"),
    ("testRR", [SIZES], lambda w: f"testRR(s, ip, {W[w]})"),
    ("testRI", [SIZES], lambda w: f"testRI(s, ip, {W[w]})"),
    ("testMR", [SIZES], lambda w: f"testM(s, ip, {W[w]}, immediate: false)"),
    ("testMI", [SIZES], lambda w: f"testM(s, ip, {W[w]}, immediate: true)"),
    ("unaryR", [["inc", "dec", "not", "neg"], SIZES, FLAGS], lambda o, w, f: f"unaryR(s, ip, .{o}, {W[w]}, flags: {B[f]})"),
    ("unaryM", [["inc", "dec", "not", "neg"], SIZES], lambda o, w: f"unaryM(s, ip, .{o}, {W[w]})"),
    ("movRR", [SIZES], lambda w: f"moveRR(s, ip, {W[w]})"),
    ("movRI", [SIZES], lambda w: f"moveRI(s, ip, {W[w]})"),
    ("load", [SIZES], lambda w: f"load(s, ip, {W[w]})"),
    ("loadForWrite", [SIZES], lambda w: f"loadForWrite(s, ip, {W[w]})"),
    ("store", [SIZES], lambda w: f"store(s, ip, {W[w]})"),
    ("storeImmediate", [SIZES], lambda w: f"storeImmediate(s, ip, {W[w]})"),
    # From width, to width, zero or sign extension.
    ("extendR", [["8", "16", "32"], ["16", "32", "64"], ["z", "s"]],
     lambda a, b, k: f"extendR(s, ip, {W[a]}, {W[b]}, signed: {'true' if k == 's' else 'false'})"),
    ("extendM", [["8", "16", "32"], ["16", "32", "64"], ["z", "s"]],
     lambda a, b, k: f"extendM(s, ip, {W[a]}, {W[b]}, signed: {'true' if k == 's' else 'false'})"),
    ("lea", [["16", "32", "64"]], lambda w: f"lea(s, ip, {W[w]})"),
    ("segmentAddress", [["64", "32"]], lambda w: "segmentAddress(s, ip)" if w == "64" else "segmentAddress32(s, ip)"),
    # Outside 64-bit mode: an operand's segment is asked; an indirect branch's target is compared with the limit.
    ("checkedAddress", [], lambda: "checkedAddress(s, ip)"),
    ("codeTarget", [["16", "32"]], lambda w: f"codeTarget(s, ip, {W[w]})"),
    ("push", [["16", "64"]], lambda w: f"push(s, ip, {W[w]}, immediate: false)"),
    ("pushI", [["16", "64"]], lambda w: f"push(s, ip, {W[w]}, immediate: true)"),
    ("pop", [["16", "64"]], lambda w: f"pop(s, ip, {W[w]})"),
    ("leave", [], lambda: "leave(s, ip)"),
    ("xchgRR", [SIZES], lambda w: f"exchangeRR(s, ip, {W[w]})"),
    ("xchgM", [SIZES], lambda w: f"exchangeM(s, ip, {W[w]})"),
    ("cmpxchgM", [SIZES], lambda w: f"compareExchangeM(s, ip, {W[w]})"),
    ("cmpxchgR", [SIZES], lambda w: f"compareExchangeR(s, ip, {W[w]})"),
    ("xaddR", [SIZES], lambda w: f"exchangeAddR(s, ip, {W[w]})"),
    ("xaddM", [SIZES], lambda w: f"exchangeAddM(s, ip, {W[w]})"),
    ("cmov", [CC, ["16", "32", "64"]], lambda c, w: f"conditionalMove(s, ip, {W[w]}, {CC.index(c)})"),
    ("setcc", [CC], lambda c: f"setCondition(s, ip, {CC.index(c)})"),
    ("setccM", [CC], lambda c: f"setConditionM(s, ip, {CC.index(c)})"),
    ("shiftRI", [SHIFT, SIZES, FLAGS], lambda o, w, f: f"shiftRI(s, ip, .{o}, {W[w]}, flags: {B[f]})"),
    ("shiftRC", [SHIFT, SIZES], lambda o, w: f"shiftRC(s, ip, .{o}, {W[w]})"),
    ("doubleShift", [["shld", "shrd"], ["16", "32", "64"], ["i", "c"]],
     lambda o, w, k: f"doubleShift(s, ip, {W[w]}, left: {'true' if o == 'shld' else 'false'}, byCL: {'true' if k == 'c' else 'false'})"),
    ("bit", [["test", "set", "reset", "complement"], ["16", "32", "64"], ["r", "i"]],
     lambda o, w, k: f"bitOperation(s, ip, .{o}, {W[w]}, immediate: {'true' if k == 'i' else 'false'})"),
    ("bitAddress", [["16", "32", "64"]], lambda w: f"bitAddress(s, ip, {W[w]})"),
    ("scan", [["f", "r"], ["16", "32", "64"]], lambda d, w: f"bitScan(s, ip, {W[w]}, reverse: {'true' if d == 'r' else 'false'})"),
    ("bswap", [["32", "64"]], lambda w: f"byteSwap(s, ip, {W[w]})"),
    ("popcnt", [["16", "32", "64"]], lambda w: f"populationCount(s, ip, {W[w]})"),
    ("imulRR", [["16", "32", "64"]], lambda w: f"multiply(s, ip, {W[w]}, immediate: false)"),
    ("imulRI", [["16", "32", "64"]], lambda w: f"multiply(s, ip, {W[w]}, immediate: true)"),
    ("mul", [["u", "s"], SIZES], lambda k, w: f"multiplyWide(s, ip, {W[w]}, signed: {'true' if k == 's' else 'false'})"),
    ("div", [["u", "s"], SIZES], lambda k, w: f"divide(s, ip, {W[w]}, signed: {'true' if k == 's' else 'false'})"),
    ("widen", [["cbw", "cwde", "cdqe", "cwd", "cdq", "cqo"]], lambda o: f"widen(s, ip, .{o})"),
    ("flagOp", [["clc", "stc", "cmc", "cld", "std"]], lambda o: f"flagOperation(s, ip, .{o})"),
    ("nop", [], lambda: "next(s, ip)"),
    # Control flow.
    ("jcc", [CC, NF], lambda c, n: f"jumpIf(s, ip, {CC.index(c)}, far: {FAR[n]})"),
    ("cmpJcc", [["8", "32", "64"], ["rr", "ri"], CC, NF],
     lambda w, k, c, n: f"compareBranch(s, ip, {W[w]}, test: false, immediate: {'true' if k == 'ri' else 'false'}, {CC.index(c)}, far: {FAR[n]})"
     if CC.index(c) >> 1 not in (0, 5) else None),
    ("testJcc", [["8", "32", "64"], ["rr", "ri"], CC, NF],
     lambda w, k, c, n: f"compareBranch(s, ip, {W[w]}, test: true, immediate: {'true' if k == 'ri' else 'false'}, {CC.index(c)}, far: {FAR[n]})"
     if CC.index(c) >> 1 in (2, 4, 6, 7) else None),
    ("jump", [NF], lambda n: "branchNear(s, ip)" if n == "near" else "branchFar(s, ip)"),
    ("jumpIfTemporary", [NF], lambda n: f"jumpIfTemporary(s, ip, far: {FAR[n]})"),
    ("jumpIndirect", [], lambda: "branchIndirect(s, get(s, ip.pointee.dst))"),
    ("call", [NF], lambda n: f"callDirect(s, ip, far: {FAR[n]})"),
    ("canonicalTarget", [], lambda: "canonicalTarget(s, ip)"),
    ("callIndirect", [], lambda: "callIndirect(s, ip)"),
    ("ret", [], lambda: "returnNear(s, ip)"),
    ("stop", [["lookup", "check"]], lambda o: f"stopAtNext(s, ip, check: {'true' if o == 'check' else 'false'})"),
    # SSE and SSE2 moves and integers.
    ("vectorRR", [VECTOR], lambda o: f"vectorRR(s, ip, .{o})"),
    ("vectorRI", [VECTOR_SHIFT], lambda o: f"vectorRI(s, ip, .{o})"),
    ("shuffle", [["pshufd", "pshuflw", "pshufhw", "shufps", "shufpd", "psrldq", "pslldq"]], lambda o: f"shuffleRR(s, ip, .{o})"),
    # 128a: a move that insists on its boundary; 128o: an operand, for which MXCSR.MM can lift that.
    ("vectorLoad", [["32", "64", "128", "128a", "128o", "8", "16"]],
     lambda w: f"vectorLoadScalar(s, ip, {W[w]})" if w in W else f"vectorLoad(s, ip, .{ALIGN[w]})"),
    ("vectorStore", [["32", "64", "128", "128a"]],
     lambda w: f"vectorStoreScalar(s, ip, {W[w]})" if w in W else f"vectorStore(s, ip, aligned: {'true' if w == '128a' else 'false'})"),
    # With a VEX prefix: AVX's checks, and the rest of the register is cleared.
    ("vexLoad", [VEX_WIDTH],
     lambda w: f"vexLoadScalar(s, ip, {W[w]})" if w in W else f"vexLoad(s, ip, .{ALIGN[w]}, wide: {'true' if w[0] == '2' else 'false'})"),
    ("vexStore", [VEX_WIDTH],
     lambda w: f"vexStoreScalar(s, ip, {W[w]})" if w in W else f"vexStore(s, ip, .{ALIGN[w]}, wide: {'true' if w[0] == '2' else 'false'})"),
    ("vexRR", [VECTOR, ["128", "256"]], lambda o, w: f"vexRR(s, ip, .{o}, wide: {'true' if w == '256' else 'false'})"),
    ("simd", [], lambda: "simdInstruction(s, ip)"),
    ("vexCheck", [], lambda: "vexCheck(s, ip)"),
    ("bitField", [], lambda: "bitFieldInstruction(s, ip)"),
    ("tzcnt", [["16", "32", "64"]], lambda w: f"countZeros(s, ip, {W[w]}, leading: false)"),
    ("lzcnt", [["16", "32", "64"]], lambda w: f"countZeros(s, ip, {W[w]}, leading: true)"),
    ("vectorFromRegister", [["32", "64"]], lambda w: f"vectorFromRegister(s, ip, {W[w]})"),
    ("vectorToRegister", [["32", "64"]], lambda w: f"vectorToRegister(s, ip, {W[w]})"),
    ("moveSigns", [["bytes", "singles", "doubles"]], lambda k: f"moveSigns(s, ip, .{k})"),
    ("insertWord", [], lambda: "insertWord(s, ip)"),
    ("extractWord", [], lambda: "extractWord(s, ip)"),
    ("sseCheck", [], lambda: "sseCheck(s, ip)"),
    ("sseFloat", [], lambda: "floatingInstruction(s, ip, .sse)"),
    # The host's own floating point, AES and SHA; not made for hosts of other kinds.
    ("hostFloat", [FLOAT, FLOAT_TYPE, list(FORM)],
     lambda o, t, f: f"hostFloat(s, ip, {FLOAT.index(o)}, {FLOAT_TYPE.index(t)}, {FORM[f]})" if t[0] == "p" or f != "256" else None),
    ("hostCompare", [["ucom", "com"], ["ss", "sd"], ["sse", "vex"]],
     lambda o, t, f: f"hostCompare(s, ip, isDouble: {TRUE[t]}, signals: {'true' if o == 'com' else 'false'}, vex: {TRUE[f]})"),
    ("hostFromInteger", [["ss", "sd"], ["32", "64"], ["sse", "vex"]],
     lambda t, w, f: f"hostFromInteger(s, ip, isDouble: {TRUE[t]}, wide: {TRUE[w]}, vex: {TRUE[f]})"),
    ("hostToInteger", [["truncated", "rounded"], ["ss", "sd"], ["32", "64"], ["sse", "vex"]],
     lambda o, t, w, f: f"hostToInteger(s, ip, isDouble: {TRUE[t]}, wide: {TRUE[w]}, truncates: {'true' if o == 'truncated' else 'false'}, vex: {TRUE[f]})"),
    ("hostFormat", [["ss", "sd"], ["sse", "vex"]], lambda t, f: f"hostFormat(s, ip, fromDouble: {TRUE[t]}, vex: {TRUE[f]})"),
    ("hostLane", [HOST_LANE, list(FORM)], lambda o, f: f"hostLane(s, ip, .{o}, {FORM[f]})"),
    ("mmxCheck", [], lambda: "floatingInstruction(s, ip, .mmxCheck)"),
    ("mmx", [], lambda: "floatingInstruction(s, ip, .mmx)"),
    ("x87", [], lambda: "floatingInstruction(s, ip, .x87)"),
    ("extended", [], lambda: "extendedInstruction(s, ip)"),
    # Rare instructions, and the engine's own.
    ("system", [], lambda: "systemInstruction(s, ip)"),
    ("after", [], lambda: "afterBounce(s, ip)"),
    ("resume", [], lambda: "resumeAfterBounce(s, ip)"),
    ("stale", [], lambda: "leaveForLookup(s, s.pointee.rip)"),
    ("forward", [], lambda: "forwardToNewBlock(s, ip)"),
    # LOCK, where other processors run at the same time.
    ("lockedALU", [["r", "i"], ALU[:7], SIZES],
     lambda k, o, w: f"lockedALU(s, ip, .{o}, {W[w]}, immediate: {'true' if k == 'i' else 'false'})"),
    ("lockedUnary", [["inc", "dec", "not", "neg"], SIZES], lambda o, w: f"lockedUnary(s, ip, .{o}, {W[w]})"),
    ("lockedExchange", [SIZES], lambda w: f"lockedExchange(s, ip, {W[w]})"),
    ("lockedCompareExchange", [SIZES], lambda w: f"lockedCompareExchange(s, ip, {W[w]})"),
    ("lockedExchangeAdd", [SIZES], lambda w: f"lockedExchangeAdd(s, ip, {W[w]})"),
    ("lockedBit", [["set", "reset", "complement"], ["16", "32", "64"], ["r", "i"]],
     lambda o, w, k: f"lockedBit(s, ip, .{o}, {W[w]}, immediate: {'true' if k == 'i' else 'false'})"),
    ("fence", [], lambda: "fence(s, ip)"),
]

functions, table, host_functions, host_table, indices, position = [], [], [], [], [], 0
for name, dimensions, body in families:
    indices.append(f"    static let {name} = {position}")
    for combination in itertools.product(*dimensions):
        text = body(*combination)
        if text is not None:
            function = "_".join([name, *combination])
            line = f"@c(snpx86_{function}) func h_{function}(_ s: CPU, _ ip: IP) {{ {text} }}"
            entry = f"    t[{position}] = h_{function}"
            (host_functions if name.startswith("host") else functions).append(line)
            (host_table if name.startswith("host") else table).append(entry)
        position += 1

functions += ["", "#if arch(x86_64)"] + host_functions + ["#endif"]
chunks = [table[i:i + 200] for i in range(0, len(table), 200)]
out = ["// Generated by ../Generate/handlers.py: do not edit.", "// swift-format-ignore-file", "", "import CX86State", "", "enum Handler {"]
out += indices + [f"    static let count = {position}", "}", ""] + functions + [""]
for i, chunk in enumerate(chunks):
    out += [f"private func fill{i}(_ t: UnsafeMutablePointer<x86_handler>) {{", *chunk, "}", ""]
out += ["/// The handlers by index; entries of combinations that do not exist hold `stale`.",
        "func makeHandlerTable() -> UnsafeMutablePointer<x86_handler> {",
        "    let t = UnsafeMutablePointer<x86_handler>.allocate(capacity: Handler.count)",
        "    t.initialize(repeating: h_stale, count: Handler.count)"]
out += [f"    fill{i}(t)" for i in range(len(chunks))]
out += ["    #if arch(x86_64)", "    fillHost(t)", "    #endif", "    return t", "}", ""]
out += ["#if arch(x86_64)", "private func fillHost(_ t: UnsafeMutablePointer<x86_handler>) {", *host_table, "}", "#endif"]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Generated", "Handlers.swift")
open(path, "w").write("\n".join(out) + "\n")
print(position, "slots,", len(functions), "handlers")
