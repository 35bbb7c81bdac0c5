// The two ways of SSE arithmetic (the host's and the integer core) give the same numbers and flags.

import TestSupport
import Testing
import X86Core

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
    ]

    @Test("host arithmetic and the integer core agree", arguments: instructions)
    func agree(_ bytes: [UInt8]) {
        let g = EngineGuest()
        var random = SystemRandomNumberGenerator()
        for _ in 0..<150 {
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
            for i in 0..<4 { g.state.xmm[i] = number() }
            g.state.generalRegisters[3] = number()
            g.state.mxcsr = 0x1fa0
            #expect(g.run(bytes) == .halt)
            let fast = g.processor.state
            g.state.mxcsr = 0x1f80
            #expect(g.run(bytes) == .halt)
            let slow = g.processor.state
            #expect(fast.xmm[0] == slow.xmm[0] && fast.xmm[1] == slow.xmm[1])
            #expect(fast.generalRegisters[0] == slow.generalRegisters[0])
            #expect(fast.rflags == slow.rflags)
            #expect(fast.mxcsr == slow.mxcsr | 0x20)
        }
    }
}
