// CKVM's tables against a reference that others made: kvm-sev-abi.md, whose numbers come from a compiler and debug
// information. Its tables are read as they are written.

import CKVM
import TestSupport
import Testing

/// One row of a Markdown table, by the titles of its columns.
private typealias Row = [String: String]

private func rows(of text: String) -> [Row] {
    var titles: [String]?
    var result: [Row] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
        guard line.hasPrefix("|") else {
            titles = nil
            continue
        }
        let cells = line.split(separator: "|", omittingEmptySubsequences: false).dropFirst().dropLast()
            .map { cell in cell.filter { $0 != "`" }.trimmed }
        guard let names = titles else {
            titles = cells
            continue
        }
        if cells.allSatisfy({ $0.allSatisfy { $0 == "-" } }) { continue }
        result.append(Row(zip(names, cells)) { first, _ in first })
    }
    return result
}

extension String {
    fileprivate var trimmed: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }

    fileprivate var number: UInt64? {
        hasPrefix("0x") ? UInt64(dropFirst(2), radix: 16) : UInt64(self)
    }
}

private let text = ForeignFacts.text("kvm-sev-abi.md")

@Suite(.enabled(if: text != nil, Comment(rawValue: ForeignFacts.absence))) struct FactsTests {
    let constants = Dictionary(
        uniqueKeysWithValues: (0..<ckvm_constant_count()).map {
            let entry = ckvm_constant_at($0)
            return (String(cString: entry.name), UInt64(entry.value))
        })

    @Test func `every number with a name is the same`() throws {
        var compared: Set<String> = []
        for row in rows(of: try #require(text)) {
            // The title of the column of names differs; that of the numbers too. "A / B" share a row with "1 / 2".
            let titled = ["ioctl", "name", "capability", "exit", "attr", "command"].compactMap { row[$0] }.first
            let value = (row["value"] ?? row["number"] ?? row["id"] ?? row["cmd"])?.split(separator: "/").map {
                String($0).trimmed
            }
            guard let names = titled?.split(separator: "/").map({ String($0).trimmed }), let value,
                names.count == value.count
            else { continue }
            for (name, value) in zip(names, value) {
                guard let ours = constants[name], let theirs = value.number else { continue }
                #expect(ours == theirs, "\(name)")
                compared.insert(name)
            }
        }
        // All requests, capabilities, exits and SEV commands are in its tables.
        #expect(compared.count > 150, "\(compared.count) compared")
    }

    @Test func `every length and offset is the same`() throws {
        var ours: [String: [String: UInt64]] = [:]
        for index in 0..<ckvm_field_count() {
            let entry = ckvm_field_at(index)
            ours[String(cString: entry.structure), default: [:]][String(cString: entry.field)] = UInt64(entry.value)
        }
        var compared = 0
        for row in rows(of: try #require(text)) {
            guard let name = row["struct"], let fields = row["field@byte offset"], let structure = ours[name] else {
                continue
            }
            #expect(structure[""] == row["size"]?.number, "\(name)")
            for field in fields.split(separator: ",") {
                let parts = field.split(separator: "@").map { String($0).trimmed }
                guard parts.count == 2, let offset = parts[1].number else { continue }
                let base = String(parts[0].prefix { $0 != "[" })
                if let expected = structure[base] {
                    #expect(expected == offset, "\(name).\(base)")
                    compared += 1
                }
            }
        }
        #expect(compared > 150, "\(compared) compared")
    }
}
