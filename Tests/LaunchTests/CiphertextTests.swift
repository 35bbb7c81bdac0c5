// What the host sees of a guest's memory: ciphertext, always; what it writes there is refused.

import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM
import Testing

@Suite struct CiphertextTests {
    @Test func hostSeesNoPlaintext() throws {
        let vm = try TestVM(readyForLaunch: true)
        let marker = Array("This sentence is the guest's own secret, sixteen-byte blocks of it.".utf8)
        var page: [UInt8] = []
        while page.count + marker.count <= 8 * 4096 { page += marker }
        page += [UInt8](repeating: 0, count: 8 * 4096 - page.count)
        let source = try vm.pages(page)
        #expect(vm.start().errno == nil)
        #expect(vm.update(.normal, gpa: 0x8000, pages: 8, source: source).errno == nil)
        try vm.setState(TestVM.longModeState)
        #expect(vm.finish().errno == nil)
        // The VMM forgets its copy, as it may.
        source.fill(0, at: 0, count: source.byteCount)

        let memory = try vm.kernel.open(.memory)
        let base = Int64(vm.kernel.systemMemory.base.rawValue)
        let needle = Array(marker.prefix(16))
        var hits = 0
        var offset: Int64 = 0
        let step: Int64 = 4 << 20
        while offset < Int64(vm.kernel.systemMemory.byteCount) {
            let view = try vm.kernel.map(memory, offset: base + offset, byteCount: Int(step))
            hits += occurrences(of: needle, in: view.copyBytes(at: 0, count: view.byteCount))
            offset += step
        }
        #expect(hits == 0)
        // The pages do hold something: not zero, and not the same twice though the plaintext repeats.
        let first = try #require(vm.kernel.systemAddress(ofPage: 8, in: vm.memfd))
        let second = try #require(vm.kernel.systemAddress(ofPage: 9, in: vm.memfd))
        let a = try vm.kernel.map(memory, offset: Int64(first.rawValue), byteCount: 4096).copyBytes(at: 0, count: 4096)
        let b = try vm.kernel.map(memory, offset: Int64(second.rawValue), byteCount: 4096).copyBytes(at: 0, count: 4096)
        #expect(a != b)
        #expect(a.contains { $0 != 0 })
    }

    private func occurrences(of needle: [UInt8], in bytes: [UInt8]) -> Int {
        var count = 0
        var index = 0
        while let start = bytes[index...].firstIndex(of: needle[0]), start + needle.count <= bytes.count {
            if bytes[start..<start + needle.count].elementsEqual(needle) { count += 1 }
            index = start + 1
        }
        return count
    }

    @Test func zeroPagesAreCiphertextToo() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        #expect(vm.update(.zero, gpa: 0, pages: 2, source: nil).errno == nil)
        let memory = try vm.kernel.open(.memory)
        let page = try #require(vm.kernel.systemAddress(ofPage: 0, in: vm.memfd))
        let view = try vm.kernel.map(memory, offset: Int64(page.rawValue), byteCount: 4096)
        #expect(view.copyBytes(at: 0, count: 4096).contains { $0 != 0 })
    }

    @Test func hostWritesAreRefused() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        let source = try vm.pages([UInt8](repeating: 0x5a, count: 4096))
        #expect(vm.update(.normal, gpa: 0, pages: 1, source: source).errno == nil)
        let page = try #require(vm.kernel.systemAddress(ofPage: 0, in: vm.memfd))
        #expect(throws: HostAccessFault.self) { try vm.kernel.systemMemory.hostWrite(page, [1, 2, 3]) }
        // Through /dev/mem a store reaches a copy.
        let memory = try vm.kernel.open(.memory)
        let view = try vm.kernel.map(memory, offset: Int64(page.rawValue), byteCount: 4096)
        let before = view.copyBytes(at: 0, count: 4096)
        view.fill(0xff, at: 0, count: 4096)
        let again = try vm.kernel.map(memory, offset: Int64(page.rawValue), byteCount: 4096)
        #expect(again.copyBytes(at: 0, count: 4096) == before)
    }

    @Test func mapArguments() throws {
        let vm = try TestVM()
        let memory = try vm.kernel.open(.memory)
        #expect(errno { _ = try vm.kernel.map(memory, offset: 1, byteCount: 4096) } == .EINVAL)
        #expect(errno { _ = try vm.kernel.map(memory, offset: 0, byteCount: 4096) } == .EINVAL)
        #expect(errno { _ = try vm.kernel.map(memory, offset: 1 << 32, byteCount: 0) } == .EINVAL)
        #expect(errno { _ = try vm.kernel.map(vm.vm, offset: 0, byteCount: 4096) } == .ENODEV)
    }

    @Test func memoryComesBackWhenTheVMGoes() throws {
        let vm = try TestVM(readyForLaunch: true)
        let kernel = vm.kernel
        let memory = kernel.systemMemory
        // More launches than 64 MiB could hold if pages leaked.
        for _ in 0..<100 {
            let handle = KernelHandle(rawValue: try kernel.call(vm.kvm, .createVM, value: 4))
            var argument = KVMSEVInit()
            withKernelAddress(of: &argument) { address in
                var envelope = KVMSEVCommand(id: .initialize2, data: address)
                #expect(errno { try kernel.call(handle, .memoryEncryptOp, &envelope) } == nil)
            }
            let file = KernelHandle(
                rawValue: try kernel.call(handle, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: 1 << 20)))
            var region = vm.region()
            region.guestMemfd = UInt32(file.rawValue)
            try kernel.call(handle, .setUserMemoryRegion2, reading: region)
            try kernel.call(
                handle, .setMemoryAttributes, reading: KVMMemoryAttributes(byteCount: 1 << 20, attributes: 8))
            var start = KVMSNPLaunchStart()
            start.policy = 0x30000
            withKernelAddress(of: &start) { address in
                var envelope = KVMSEVCommand(id: .snpLaunchStart, data: address, sevHandle: vm.sev)
                #expect(errno { try kernel.call(handle, .memoryEncryptOp, &envelope) } == nil)
            }
            var update = KVMSNPLaunchUpdate()
            update.byteCount = 1 << 20
            update.type = PageType.zero.rawValue
            withKernelAddress(of: &update) { address in
                var envelope = KVMSEVCommand(id: .snpLaunchUpdate, data: address, sevHandle: vm.sev)
                #expect(errno { try kernel.call(handle, .memoryEncryptOp, &envelope) } == nil)
            }
            #expect(update.byteCount == 0)
            kernel.close(file)
            kernel.close(handle)
        }
        #expect(memory.byteCount == 64 << 20)
    }
}
