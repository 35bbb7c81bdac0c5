// /dev/sev-guest: the structures of <linux/sev-guest.h>, byte for byte.
//
//   snp_guest_request_ioctl   0 msg_version u8   8 req_data u64   16 resp_data u64   24 exitinfo2 u64
//   snp_ext_report_req        0 snp_report_req   96 certs_address u64   104 certs_len u32   108 padding

import ABILayout
import CGuestAgent
import CProcess
import KVMABI

/// The driver of the kernel that runs here.
public final class LinuxSEVGuestDriver: SEVGuestDriver {
    public static let path = "/dev/sev-guest"
    /// Made by every kernel that runs as an SNP guest and found its secrets page, with or without the driver.
    private static let platformDevice = "/sys/devices/platform/sev-guest"
    private static let extendedRequestByteCount = 112

    private let descriptor: Int32

    /// Opens the device. Where its module is there and not loaded, as in a system without udev, it is loaded.
    public init() throws(AgentError) {
        var result = Self.open()
        if result == -Errno.ENOENT.rawValue, LocalFile(Self.platformDevice + "/modalias").exists {
            _ = runProgram(["/sbin/modprobe", "sev-guest"], input: [])
            result = Self.open()
        }
        guard result >= 0 else { throw Self.failure(Errno(rawValue: -result)) }
        descriptor = result
    }

    deinit { file_close(descriptor) }

    public func send(_ request: SEVGuestRequest) -> SEVGuestReply {
        var response = [UInt8](repeating: 0, count: request.operation.responseByteCount)
        var certificates = [UInt8](repeating: 0, count: request.certificateByteCount)
        var payload = request.payload
        var reply = SEVGuestReply(payload: [])
        withKernelAddress(ofMutable: &response) { responseAddress in
            withKernelAddress(ofMutable: &certificates) { certificatesAddress in
                if request.operation == .extendedReport {
                    payload.appendLittleEndian(request.certificateByteCount == 0 ? 0 : certificatesAddress)
                    payload.appendLittleEndian(UInt32(truncatingIfNeeded: request.certificateByteCount))
                    payload.appendLittleEndian(UInt32(0))
                }
                withKernelAddress(ofMutable: &payload) { payloadAddress in
                    var argument: [UInt8] = []
                    argument.appendLittleEndian(UInt64(request.messageVersion))
                    argument.appendLittleEndian(payloadAddress)
                    argument.appendLittleEndian(responseAddress)
                    argument.appendLittleEndian(UInt64(0))
                    let result = withKernelAddress(ofMutable: &argument) {
                        device_ioctl(descriptor, Self.requestWord(request.operation), $0)
                    }
                    reply.errno = result < 0 ? Errno(rawValue: -result) : nil
                    reply.exitInformation = argument.littleEndian(at: 24) ?? 0
                }
            }
        }
        if request.operation == .extendedReport {
            let needed: UInt32 = payload.littleEndian(at: 104) ?? 0
            reply.neededCertificateByteCount = Int(needed)
        }
        reply.payload = response
        reply.certificates = certificates
        return reply
    }

    /// `_IOWR('S', number, struct snp_guest_request_ioctl)`.
    public static func requestWord(_ operation: SEVGuestRequest.Operation) -> UInt32 {
        3 << 30 | 32 << 16 | 0x53 << 8 | operation.rawValue
    }

    private static func open() -> Int32 {
        withKernelAddress(of: Array(path.utf8) + [0]) { device_open($0) }
    }

    private static func failure(_ errno: Errno) -> AgentError {
        let kernel = LocalFile("/proc/sys/kernel/osrelease").firstLine ?? "of an unknown version"
        let (cause, next) =
            switch errno {
            case .ENOENT where LocalFile(platformDevice + "/modalias").exists:
                (
                    "the driver is missing: this kernel, \(kernel), has no module sev-guest, or it is not installed",
                    "load it with modprobe sev-guest, or use a kernel with CONFIG_SEV_GUEST; Debian's -amd64 kernels "
                        + "have the module, its -cloud-amd64 kernels do not"
                )
            case .ENOENT:
                (
                    "this is not an SNP guest: the kernel, \(kernel), has registered no sev-guest device",
                    "look for 'SEV-SNP' in dmesg; launch the guest with --confidential snp"
                )
            case .EACCES, .EPERM: ("only root may ask for reports", "run the agent as root")
            default: ("the device is of another kind", "look at dmesg")
            }
        return AgentError(
            .unavailable, attempt: "reach the firmware", subject: path, found: "\(errno)", likelyCause: cause,
            nextStep: next)
    }
}
