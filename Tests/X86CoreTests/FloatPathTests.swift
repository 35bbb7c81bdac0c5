// The two ways of vector arithmetic (the host's instructions and the engine's own) give the same numbers and flags.

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct FloatPathTests {
    private static let instructions = [
        code("addsd xmm0, xmm1; hlt", "f20f58c1f4"), code("subsd xmm0, xmm1; hlt", "f20f5cc1f4"),
        code("mulsd xmm0, xmm1; hlt", "f20f59c1f4"), code("divsd xmm0, xmm1; hlt", "f20f5ec1f4"),
        code("sqrtsd xmm0, xmm1; hlt", "f20f51c1f4"), code("minsd xmm0, xmm1; hlt", "f20f5dc1f4"),
        code("maxsd xmm0, xmm1; hlt", "f20f5fc1f4"), code("addps xmm0, xmm1; hlt", "0f58c1f4"),
        code("subps xmm0, xmm1; hlt", "0f5cc1f4"), code("mulps xmm0, xmm1; hlt", "0f59c1f4"),
        code("divps xmm0, xmm1; hlt", "0f5ec1f4"), code("sqrtps xmm0, xmm1; hlt", "0f51c1f4"),
        code("addss xmm0, xmm1; hlt", "f30f58c1f4"), code("mulpd xmm0, xmm1; hlt", "660f59c1f4"),
        code("ucomisd xmm0, xmm1; hlt", "660f2ec1f4"), code("comiss xmm0, xmm1; hlt", "0f2fc1f4"),
        code("cvttsd2si eax, xmm1; hlt", "f20f2cc1f4"), code("cvttss2si rax, xmm1; hlt", "f3480f2cc1f4"),
        code("cvtsi2sd xmm0, rbx; hlt", "f2480f2ac3f4"),
        code("cvtsi2ss xmm0, rbx; hlt", "f3480f2ac3f4"), code("cvtsi2sd xmm0, ebx; hlt", "f20f2ac3f4"),
        code("cmpltpd xmm0, xmm1; hlt", "660fc2c101f4"), code("vcmpps xmm0, xmm0, xmm1, 0x1d; hlt", "c5f8c2c11df4"),
        code("vaddpd ymm0, ymm0, ymm1; hlt", "c5fd58c1f4"), code("vdivss xmm0, xmm1, xmm1; hlt", "c5f25ec1f4"),
        code("cvtss2sd xmm0, xmm1; hlt", "f30f5ac1f4"), code("cvtpd2ps xmm0, xmm1; hlt", "660f5ac1f4"),
        code("vcvtpd2ps xmm0, ymm1; hlt", "c5fd5ac1f4"), code("cvtps2dq xmm0, xmm1; hlt", "660f5bc1f4"),
        code("vcvtpd2dq xmm0, ymm1; hlt", "c5ffe6c1f4"), code("vcvtps2pd ymm0, xmm1; hlt", "c5fc5ac1f4"),
        code("roundsd xmm0, xmm1, 1; hlt", "660f3a0bc101f4"), code("roundps xmm0, xmm1, 4; hlt", "660f3a08c104f4"),
        code("haddpd xmm0, xmm1; hlt", "660f7cc1f4"), code("addsubps xmm0, xmm1; hlt", "f20fd0c1f4"),
        code("vfmadd132sd xmm0, xmm1, xmm1; hlt", "c4e2f199c1f4"),
        code("vfnmsub213ps ymm0, ymm1, ymm0; hlt", "c4e275aec0f4"),
        code("vfmaddsub231pd xmm0, xmm1, xmm0; hlt", "c4e2f1b6c0f4"), code("vcvtph2ps ymm0, xmm1; hlt", "c4e27d13c1f4"),
        code("cvtsd2si rax, xmm1; hlt", "f2480f2dc1f4"), code("vpaddw ymm0, ymm0, ymm1; hlt", "c5fdfdc1f4"),
        code("vpsrad ymm0, ymm0, xmm1; hlt", "c5fde2c1f4"), code("vpackuswb ymm0, ymm1, ymm0; hlt", "c5f567c0f4"),
        code("pshufb xmm0, xmm1; hlt", "660f3800c1f4"), code("aesenc xmm0, xmm1; hlt", "660f38dcc1f4"),
        code("vaesdeclast ymm0, ymm1, ymm0; hlt", "c4e275dfc0f4"), code("aesimc xmm0, xmm1; hlt", "660f38dbc1f4"),
        code("vpclmulqdq ymm0, ymm0, ymm1, 0x11; hlt", "c4e37d44c111f4"),
        code("sha256rnds2 xmm0, xmm1; hlt", "0f38cbc1f4"), code("sha1rnds4 xmm0, xmm1, 2; hlt", "0f3accc102f4"),
    ]

    /// With all exceptions masked and without flags; with flags; rounding down, FTZ and DAZ; rounding up and everything
    /// unmasked.
    private static let controls: [UInt32] = [0x1f80, 0x1fa0, 0xbfc0, 0x5fbf, 0x4000]

    /// Both ways once more, on one processor each: what one instruction leaves behind in the host's own MXCSR must not be
    /// seen by the next.
    @Test("the host's instructions and the integer core agree", arguments: instructions)
    func agree(_ bytes: [UInt8]) {
        func guest(_ usesHostArithmetic: Bool) -> EngineGuest {
            var configuration = Processor.Configuration()
            configuration.usesHostArithmetic = usesHostArithmetic
            let g = EngineGuest(configuration: configuration)
            g.state.cr4 |= CR4.osxsave
            g.state.xcr0 = 7
            return g
        }
        let host = guest(true), computed = guest(false)
        var random = SystemRandomNumberGenerator()
        for round in 0..<300 {
            func number() -> UInt64 {
                let v = UInt64.random(in: 0...UInt64.max, using: &random)
                switch UInt64.random(in: 0..<6, using: &random) {
                case 0: return v
                case 1: return v & 0x8000_0000_8000_0000
                case 2: return (v & 0x800f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000
                case 3: return (v & 0x807f_ffff_807f_ffff) | 0x3f80_0000_3f80_0000
                case 4: return (Double(Int64(bitPattern: v) >> 40) / 8).bitPattern
                default: return v & 0x81ff_ffff_81ff_ffff
                }
            }
            for i in 0..<4 {
                host.state.xmm[i] = number()
                host.state.ymmUpper[i] = number()
            }
            host.state.generalRegisters[3] = number()
            host.state.mxcsr = Self.controls[round % Self.controls.count]
            computed.state = host.state
            #expect(host.run(bytes) == computed.run(bytes))
            let fast = host.processor.state, slow = computed.processor.state
            #expect(fast.xmm[0] == slow.xmm[0] && fast.xmm[1] == slow.xmm[1])
            #expect(fast.ymmUpper[0] == slow.ymmUpper[0] && fast.ymmUpper[1] == slow.ymmUpper[1])
            #expect(fast.generalRegisters[0] == slow.generalRegisters[0])
            #expect(fast.rflags == slow.rflags)
            #expect(fast.mxcsr == slow.mxcsr, "\(host.state.mxcsr)")
        }
    }
}
