// The same data for programs: one JSON object, whose members have the names of the model.

extension RunReportData {
    /// The whole model on one line [RFC 8259]. Sizes and times are numbers; addresses, ASIDs' policies and digests are
    /// strings in hexadecimal; what nobody knows is null.
    public var json: String {
        JSONValue.object([
            ("title", .string(title)), ("program", .string(program)), ("startedAt", .string(startedAt)),
            ("technology", .string(technology.rawValue)), ("softwareMachine", .bool(isSoftwareMachine)),
            ("outcome", .object([("text", .string(outcome.text)), ("success", .bool(outcome.isSuccess))])),
            ("highlights", .facts(highlights)),
            ("firmware", .facts(firmware.facts)),
            (
                "hypervisor",
                .object([
                    ("name", .string(hypervisor.name)), ("backend", .string(hypervisor.backend)),
                    ("facts", .facts(hypervisor.facts)),
                ])
            ),
            ("memoryController", memoryController.asJSON),
            ("machines", .array(machines.map(\.asJSON))),
            (
                "owner",
                owner.map { .object([("place", .string($0.place)), ("facts", .facts($0.facts))]) } ?? .null
            ),
            ("messages", .array(messages.map(\.asJSON))),
            ("policy", policy?.asJSON ?? .null),
            ("measurements", .array(measurements.map(\.asJSON))),
            ("steps", .array(steps.map(\.asJSON))),
            ("memory", memory.asJSON),
            ("exits", exits.asJSON),
        ]).text
    }
}

/// A JSON value that is only ever written.
indirect enum JSONValue {
    case null
    case bool(Bool)
    case number(UInt64)
    case string(String)
    case array([JSONValue])
    case object([(String, JSONValue)])

    static func facts(_ facts: [RunReportData.Fact]) -> JSONValue {
        .array(facts.map { .object([("name", .string($0.name)), ("value", $0.value.map { .string($0) } ?? .null)]) })
    }
    static func hex(_ value: UInt64?) -> JSONValue { value.map { .string(Readable.hex($0)) } ?? .null }
    static func count(_ value: UInt64?) -> JSONValue { value.map { .number($0) } ?? .null }

    var text: String {
        var result = ""
        write(to: &result)
        return result
    }

    private func write(to result: inout String) {
        switch self {
        case .null: result += "null"
        case .bool(let value): result += value ? "true" : "false"
        case .number(let value): result += "\(value)"
        case .string(let value): Self.quote(value, to: &result)
        case .array(let values):
            result += "["
            for (index, value) in values.enumerated() {
                if index > 0 { result += "," }
                value.write(to: &result)
            }
            result += "]"
        case .object(let members):
            result += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { result += "," }
                Self.quote(member.0, to: &result)
                result += ":"
                member.1.write(to: &result)
            }
            result += "}"
        }
    }

    private static func quote(_ text: String, to result: inout String) {
        result += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _
            where scalar.value < 0x20 || scalar.value == 0x7f || scalar.value == 0x2028 || scalar.value == 0x2029:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        result += "\""
    }
}

extension RunReportData.MemoryController {
    fileprivate var asJSON: JSONValue {
        .object([
            (
                "keySlots",
                keySlots.map { slots in
                    .array(
                        slots.map {
                            .object([
                                ("asid", .number(UInt64($0.asid))), ("label", .string($0.label)),
                                ("loaded", .bool($0.isLoaded)),
                            ])
                        })
                } ?? .null
            ),
            ("facts", .facts(facts)),
        ])
    }
}

extension RunReportData.VirtualMachine {
    fileprivate var asJSON: JSONValue {
        .object([
            ("name", .string(name)), ("technology", .string(technology.rawValue)),
            ("asid", .count(asid.map { UInt64($0) })),
            ("memoryByteCount", .number(memoryByteCount)), ("privateByteCount", .count(privateByteCount)),
            ("sharedByteCount", .count(sharedByteCount)),
            (
                "processors",
                .array(
                    processors.map {
                        .object([
                            ("index", .number(UInt64(max(0, $0.index)))), ("vmcb", .hex($0.vmcb)),
                            ("vmsa", .hex($0.vmsa)),
                            ("ghcb", .hex($0.ghcb)),
                        ])
                    })
            ),
        ])
    }
}

extension RunReportData.Message {
    fileprivate var asJSON: JSONValue {
        .object([
            ("number", .number(UInt64(max(0, number)))), ("from", .string(from.rawValue)), ("to", .string(to.rawValue)),
            ("name", .string(name)), ("calls", .number(callCount)), ("byteCount", .number(byteCount)),
            ("nanoseconds", .count(nanoseconds)), ("detail", .string(detail)),
            ("failure", failure.map { .string($0) } ?? .null),
        ])
    }
}

extension RunReportData.Policy {
    fileprivate var asJSON: JSONValue {
        .object([
            ("value", .hex(rawValue)), ("allowsDebug", .bool(allowsDebug)),
            ("items", .array(items.map { .object([("name", .string($0.name)), ("meaning", .string($0.meaning))]) })),
        ])
    }
}

extension RunReportData.Measurement {
    fileprivate var asJSON: JSONValue {
        .object([
            ("title", .string(title)), ("value", .string(value)), ("note", .string(note)),
            ("asExpected", isAsExpected.map { .bool($0) } ?? .null),
        ])
    }
}

extension RunReportData.Step {
    fileprivate var asJSON: JSONValue {
        .object([
            ("name", .string(name)), ("detail", .string(detail)), ("group", .string(group.rawValue)),
            ("nanoseconds", .number(nanoseconds)),
        ])
    }
}

extension RunReportData.MemoryMap {
    fileprivate var asJSON: JSONValue {
        func regions(_ regions: [RunReportData.Region]) -> JSONValue {
            .array(
                regions.map {
                    .object([
                        ("gpa", .hex($0.start)), ("byteCount", .number($0.byteCount)),
                        ("state", .string($0.state.rawValue)),
                        ("label", .string($0.label)),
                    ])
                })
        }
        return .object([
            ("before", regions(before)), ("after", after.map(regions) ?? .null), ("outside", regions(outside)),
            ("note", .string(note)),
        ])
    }
}

extension RunReportData.ExitTimeline {
    fileprivate var asJSON: JSONValue {
        .object([
            ("binNanoseconds", .number(binNanoseconds)), ("runNanoseconds", .number(runNanoseconds)),
            (
                "kinds",
                .array(
                    kinds.map {
                        .object([
                            ("name", .string($0.name)), ("total", .number($0.total)),
                            ("bins", .array($0.bins.map { .number($0) })),
                        ])
                    })
            ),
        ])
    }
}
