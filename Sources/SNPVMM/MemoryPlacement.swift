// Where a guest's memory and its vCPUs' threads lie on the host. Nothing that is measured or that a guest sees depends on it.

import KVMABI
import SEVABI

/// Where the guest's memory comes from.
public struct MemoryPlacement: Equatable, Sendable {
    /// The pages behind the memory that host and guest share. A guest_memfd's are as the kernel makes them.
    public enum Pages: Equatable, Sendable {
        /// Huge pages where they help, as far as the kernel gives them: for a guest without encryption.
        case automatic
        /// Pages of the usual size.
        case small
        /// Huge pages as far as the kernel gives them (`MADV_HUGEPAGE`).
        case huge
        /// Huge pages that the host has set aside (hugetlbfs); all of them are taken at once. Not for an SNP guest, whose pages
        /// change sides one by one.
        case reservedHuge
    }
    public var pages: Pages
    /// The host's NUMA node; nil: as the kernel chooses. A guest_memfd takes its pages where the thread that launches the guest
    /// does (``OwnProcess/bindMemory(toNode:)``).
    public var node: UInt32?
    /// Threads that make all pages before the launch; 0: pages are made when they are touched. An SNP guest's private pages are
    /// all made by its launch, its shared ones never before it shares them.
    public var populatingThreadCount: Int

    public init(pages: Pages = .automatic, node: UInt32? = nil, populatingThreadCount: Int = 0) {
        self.pages = pages
        self.node = node
        self.populatingThreadCount = populatingThreadCount
    }

    /// Fresh memory of this kind.
    func map(
        _ byteCount: Int, for technology: GuestTechnology?, on kernel: any HostKernel, _ step: String, _ context: String
    )
        throws(VMMError) -> KernelMapping
    {
        let mapping: KernelMapping
        if pages == .reservedHuge {
            mapping = try request(step, "MAP_HUGETLB", context) { () throws(Errno) in
                try KernelMapping.hugePages(byteCount: byteCount)
            }
        } else {
            mapping = try request(step, "mmap", context) { () throws(Errno) in
                try kernel.map(.anonymous, offset: 0, byteCount: byteCount)
            }
        }
        switch pages {
        case .huge: mapping.adviseHugePages()
        // Memory without encryption is moved in no small pieces.
        case .automatic: if technology == nil { mapping.adviseHugePages() }
        case .small: mapping.adviseSmallPages()
        case .reservedHuge: break
        }
        if let node {
            try request("bind the guest's memory to a node", "mbind", "node \(node)") { () throws(Errno) in
                try mapping.bind(toNode: node)
            }
        }
        return mapping
    }
}

extension GuestMemory {
    /// Makes all pages that the guest will have in this process's own memory. Before anything is written there.
    func populate(_ placement: MemoryPlacement, _ steps: StepRecorder) throws(VMMError) {
        let parts = slots.filter { $0.memfd == nil }.map(\.shared)
        guard placement.populatingThreadCount > 0, !parts.isEmpty else { return }
        let pageCount = parts.reduce(UInt64(0)) { $0 + UInt64($1.byteCount / KVM.pageByteCount) }
        let name = "make the guest's pages"
        let begin = steps.begin(.memory, name, pageCount: pageCount)
        var done: UInt64 = 0
        for part in parts {
            // Pieces that take long enough for threads, and short enough to be seen going on.
            let piece = placement.populatingThreadCount * 64 << 20
            for offset in stride(from: 0, to: part.byteCount, by: piece) {
                let byteCount = min(piece, part.byteCount - offset)
                try request(
                    name, "MADV_POPULATE_WRITE", readable(byteCount: pageCount * UInt64(KVM.pageByteCount))
                ) { () throws(Errno) in
                    try part.populate(
                        offset: offset, byteCount: byteCount, threadCount: placement.populatingThreadCount)
                }
                done += UInt64(byteCount / KVM.pageByteCount)
                steps.progress(done)
            }
        }
        steps.end(begin, detail: "\(pageCount) pages, \(placement.populatingThreadCount) threads")
    }
}
