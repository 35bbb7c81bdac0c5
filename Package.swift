// swift-tools-version: 6.3
import PackageDescription

// Every Swift target: language mode 6, strict memory safety, warnings are errors.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

// The CPU engine is unsafe code by nature (see X86Core.docc, Decisions/TheEngineAndMemorySafety) and is
// optimised in debug builds too: without -O its handlers would not become tail calls, and it would be 30 times slower.
// A handler calls nothing, so it needs no frame pointer, which would be three of its ten to twenty instructions.
let engine: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .unsafeFlags(["-Xcc", "-momit-leaf-frame-pointer"]),
    .unsafeFlags(["-O"], .when(configuration: .debug)),
]

func module(
    _ name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = [], settings: [SwiftSetting] = strict
) -> Target {
    .target(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies + ["TestSupport"], path: "Tests/\(name)")
}

let package = Package(
    name: "swift-snp-vmm",
    products: [
        .executable(name: "swift-snp-vmm", targets: ["swift-snp-vmm"]),
        .library(
            name: "SNPVMM",
            targets: [
                "SNPVMM", "KVMABI", "LinuxKVM", "SoftwareKVM", "GuestImage", "LaunchMeasurement", "Attestation",
                "GuestOwner", "RunReport", "HostSockets",
            ]),
        // The software kernel for programs that open /dev/kvm themselves.
        .library(name: "snpvmm-preload", type: .dynamic, targets: ["KVMPreload"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        // For the owner's server alone: see OwnerServer.docc, Decisions/SwiftNIOForTheOwner.
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [
        // C: the kernel's entry points, libcrypto's module map, the layout of the CPU state.
        .target(name: "CKVM", cSettings: [.define("_GNU_SOURCE")]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(name: "CX86State"),
        // The command's terminal and files, in plain integers: what must run in a signal handler must be C.
        .target(name: "CProcess"),
        // The guest agent's device, socket and child process, in plain integers too.
        .target(name: "CGuestAgent"),

        // Leaves: pure values.
        module("ABILayout"),
        module("X86Defs"),
        module("SEVABI", ["ABILayout", "X86Defs"]),
        module("KVMABI", ["ABILayout", "CKVM"]),
        module("Crypto", ["COpenSSL"]),

        // The two host kernels.
        module("LinuxKVM", ["KVMABI", "CKVM"]),
        module("MemoryController", ["SEVABI", "Crypto"]),
        module("SoftwarePSP", ["SEVABI", "MemoryController", "Crypto"]),
        module("X86Core", ["X86Defs", "CX86State"], exclude: ["Generate"], settings: engine),
        module(
            "SoftwareKVM",
            [
                "ABILayout", "HostDiagnosis", "JSONText", "KVMABI", "SEVABI", "X86Defs", "X86Core", "SoftwarePSP",
                "MemoryController",
            ]),

        // The software kernel inside another program: one shared object with Swift's runtime in it, which shows nothing
        // but the functions it stands before.
        .target(name: "CPreload", exclude: ["exports.map"], cSettings: [.define("_GNU_SOURCE")]),
        .target(
            name: "KVMPreload", dependencies: ["CPreload", "KVMABI", "SoftwareKVM"], swiftSettings: strict,
            linkerSettings: [
                .unsafeFlags(
                    ["-static-stdlib"]
                        + [
                            "--version-script=\(Context.packageDirectory)/Sources/CPreload/exports.map",
                            "--no-undefined",
                        ]
                        .flatMap { ["-Xlinker", $0] })
            ]),

        // The hypervisor and what it launches.
        module("GuestImage", ["SEVABI", "X86Defs", "Crypto"]),
        module("LaunchMeasurement", ["SEVABI", "X86Defs", "GuestImage", "Crypto"]),
        module("VMMDevices", ["ABILayout"]),
        // What a thread gives up before it serves a guest: capabilities, files, most of the kernel's calls.
        module("Sandbox", ["KVMABI", "CProcess"]),
        // What a guest's devices need of the host besides its kernel: unix sockets.
        module("HostSockets", ["ABILayout", "KVMABI", "VMMDevices", "CProcess", "Sandbox"]),
        module("JSONText"),
        // What errors mean and what a host lacks, as tables: pure data and rules over it.
        module("HostDiagnosis", ["JSONText", "KVMABI", "SEVABI"]),
        module("SNPVMM", ["HostDiagnosis", "JSONText", "KVMABI", "SEVABI", "X86Defs", "GuestImage", "VMMDevices"]),
        // One page about one run: the diagram, the launch, the memory, the exits.
        module("RunReport"),

        // How a guest gets a secret from its owner: both sides' bytes. A guest's agent links it.
        module("SecretRelease", ["ABILayout", "SEVABI", "Crypto"]),

        // The guest owner, outside: needs no KVM and no SEV machine.
        module("Attestation", ["ABILayout", "SEVABI", "Crypto", "JSONText"]),
        module(
            "GuestOwner",
            [
                "ABILayout", "SEVABI", "Crypto", "GuestImage", "LaunchMeasurement", "Attestation", "SecretRelease",
                "JSONText",
            ]),

        // Inside the guest: asks the firmware for reports and the owner for secrets. One static program, so that any
        // initramfs can carry it; lld, because its warnings about static glibc are for programs that look up names.
        module(
            "GuestAgent", ["ABILayout", "KVMABI", "SEVABI", "Crypto", "SecretRelease", "CProcess", "CGuestAgent"]),
        .executableTarget(
            name: "snp-guest-agent", dependencies: ["GuestAgent"], swiftSettings: strict,
            linkerSettings: [
                .unsafeFlags(
                    ["-static-executable", "-use-ld=lld"] + ["-s", "--icf=all"].flatMap { ["-Xlinker", $0] })
            ]),

        // The owner of SNP guests behind sockets, vsock and HTTP. The command's alone.
        .target(
            name: "OwnerServer",
            dependencies: [
                "GuestOwner", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: strict),

        // What an attacking host can do, and what each technology stops: scenarios on the seam.
        module(
            "IsolationSuite",
            ["KVMABI", "SEVABI", "X86Defs", "Crypto", "GuestImage", "LaunchMeasurement", "GuestOwner", "SNPVMM"]),
        // The attacker's kernel privileges on the software machine; on hardware nobody has them.
        module(
            "HostileSoftwareKernel",
            ["IsolationSuite", "SoftwareKVM", "SoftwarePSP", "MemoryController", "KVMABI", "SEVABI"]),

        // The edge: picks a host kernel and wires everything. With Swift's libraries inside it starts sooner, and runs where
        // Swift is not installed. Linking so reaches whatever depends on it, and Testing has no such form: no test does.
        .executableTarget(
            name: "swift-snp-vmm",
            dependencies: [
                "SNPVMM", "HostDiagnosis", "VMMDevices", "HostSockets", "Sandbox", "KVMABI", "LinuxKVM", "SoftwareKVM",
                "SoftwarePSP", "GuestImage",
                "LaunchMeasurement", "Attestation", "GuestOwner", "SecretRelease", "OwnerServer", "RunReport",
                "IsolationSuite",
                "HostileSoftwareKernel", "SEVABI",
                "X86Defs",
                "Crypto", "CProcess",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict,
            linkerSettings: [
                .unsafeFlags(["-static-stdlib", "-use-ld=lld", "-l_FoundationCollections", "-l_FoundationCShims"])
            ]),

        // Examples: one lesson each.
        .executableTarget(
            name: "example-measured-launch",
            dependencies: ["SNPVMM", "SoftwareKVM", "GuestImage", "LaunchMeasurement"],
            path: "Examples/MeasuredLaunch"),
        .executableTarget(
            name: "example-two-guests",
            dependencies: ["SNPVMM", "SoftwareKVM", "GuestImage", "SEVABI"],
            path: "Examples/TwoGuests"),

        // Tests.
        .target(
            name: "TestSupport", dependencies: ["KVMABI", "SEVABI", "X86Defs", "CProcess"], path: "Tests/TestSupport"),
        // The driver's side of virtio: memory, rings and registers.
        .target(
            name: "VirtioTestSupport", dependencies: ["ABILayout", "VMMDevices"], path: "Tests/VirtioTestSupport"),
        tests("KVMABITests", ["KVMABI", "CKVM", "ABILayout"]),
        tests("LinuxKVMTests", ["KVMABI", "LinuxKVM"]),
        tests(
            "KVMConformanceTests",
            ["KVMABI", "LinuxKVM", "SoftwareKVM", "SEVABI", "SoftwarePSP", "MemoryController", "Crypto"]),
        // The software kernel and the machine's own, compared: transcripts of flat guests, and requests.
        .target(
            name: "KernelComparison",
            dependencies: ["KVMABI", "LinuxKVM", "SoftwareKVM", "SNPVMM", "GuestImage", "TestSupport"],
            path: "Tests/KernelComparison"),
        tests("KernelComparisonTests", ["KernelComparison", "KVMABI"]),
        tests("SEVABITests", ["SEVABI", "X86Defs", "CKVM"]),
        tests(
            "HostDiagnosisTests",
            [
                "HostDiagnosis", "KVMABI", "SEVABI", "JSONText", "SNPVMM", "SoftwareKVM", "SoftwarePSP", "GuestImage",
                "X86Defs",
            ]),
        tests("CryptoTests", ["Crypto"]),
        tests("MemoryControllerTests", ["MemoryController", "SEVABI", "Crypto"]),
        tests("SoftwarePSPTests", ["SoftwarePSP", "MemoryController", "SEVABI", "Crypto", "Attestation"]),
        // The host's own processor as judge of the engine: a child process, and the comparison.
        .target(name: "CNativeJudge", path: "Tests/CNativeJudge", cSettings: [.define("_GNU_SOURCE")]),
        .target(
            name: "ProcessorJudge", dependencies: ["X86Core", "X86Defs", "CNativeJudge", "TestSupport"],
            path: "Tests/ProcessorJudge", exclude: ["Failures"]),
        .executableTarget(name: "conformance", dependencies: ["ProcessorJudge"], path: "Tests/Conformance"),
        tests("X86CoreTests", ["X86Core", "X86Defs", "CX86State", "ProcessorJudge", "SoftwareKVM"]),
        tests("GuestImageTests", ["GuestImage", "SEVABI", "X86Defs"]),
        tests("LaunchMeasurementTests", ["LaunchMeasurement", "GuestImage", "SEVABI", "X86Defs", "Crypto"]),
        tests("VMMDevicesTests", ["ABILayout", "VMMDevices", "VirtioTestSupport"]),
        tests("HostSocketsTests", ["HostSockets", "VMMDevices", "KVMABI", "CProcess"]),
        tests("SandboxTests", ["Sandbox", "CProcess"]),
        tests("AttestationTests", ["Attestation", "SEVABI", "Crypto"]),
        tests(
            "SecretReleaseTests",
            [
                "SecretRelease", "GuestOwner", "OwnerServer", "Attestation", "SNPVMM", "SoftwareKVM",
                "SoftwarePSP", "KVMABI", "GuestImage", "LaunchMeasurement", "SEVABI", "X86Defs", "Crypto",
            ]),
        tests(
            "GuestOwnerTests",
            ["GuestOwner", "SEVABI", "X86Defs", "Crypto", "GuestImage", "LaunchMeasurement", "Attestation"]),
        tests("GuestAgentTests", ["GuestAgent", "SecretRelease", "SEVABI", "KVMABI", "Crypto", "ABILayout", "CKVM"]),
        tests("RunReportTests", ["RunReport"]),
        tests(
            "IsolationSuiteTests",
            [
                "IsolationSuite", "HostileSoftwareKernel", "SoftwareKVM", "MemoryController", "KVMABI", "SEVABI",
            ]),
        tests(
            "SNPVMMTests",
            [
                "SNPVMM", "KVMABI", "SoftwareKVM", "SoftwarePSP", "GuestImage", "GuestOwner", "LaunchMeasurement",
                "SEVABI", "VMMDevices", "X86Defs", "Crypto",
            ]),
        tests(
            "LaunchTests",
            [
                "SNPVMM", "KVMABI", "SoftwareKVM", "GuestImage", "LaunchMeasurement", "SEVABI", "X86Defs",
                "MemoryController",
            ]),
        // The command, the fuzz driver and the benchmarks as programs, with the flat guests of Firmware/.
        tests(
            "CommandTests",
            [
                "fuzz", "bench", "lifecycles", "example-measured-launch", "example-two-guests",
                "Crypto", "CProcess",
                "GuestAgent", "GuestOwner",
                "SEVABI",
            ]),
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "GuestImage", "SEVABI", "X86Core", "X86Defs", "SoftwareKVM", "SNPVMM", "KVMABI", "TestSupport",
                "GuestOwner", "SecretRelease", "SoftwarePSP", "Attestation", "Crypto", "VMMDevices", "ABILayout",
                "MemoryController", "VirtioTestSupport", "LaunchMeasurement", "HostDiagnosis", "KernelComparison",
            ],
            path: "Tests/Fuzz", exclude: ["Failures"]),
        // Machines started and stopped in one process, which nothing else of the tests is in.
        .executableTarget(
            name: "lifecycles", dependencies: ["SNPVMM", "SoftwareKVM", "GuestImage", "SEVABI", "TestSupport"],
            path: "Tests/Lifecycles"),
        .executableTarget(
            name: "bench",
            dependencies: [
                "X86Core", "X86Defs", "LaunchMeasurement", "GuestImage", "Attestation", "Crypto", "COpenSSL",
                "TestSupport",
            ],
            path: "Tests/Benchmarks", exclude: ["peers.py"]),
    ],
    swiftLanguageModes: [.v6]
)
