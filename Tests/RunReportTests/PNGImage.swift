// Just enough PNG to look at a screenshot: 8 bits per channel, truecolour with or without alpha, not interlaced
// (ISO/IEC 15948; DEFLATE is RFC 1951).

struct PNGImage {
    let width: Int
    let height: Int
    private let channelCount: Int
    private var samples: [UInt8]

    /// Nil for anything that is not such an image.
    init?(_ bytes: [UInt8]) {
        guard bytes.starts(with: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]) else { return nil }
        func word(_ at: Int) -> Int { bytes[at..<at + 4].reduce(0) { $0 << 8 | Int($1) } }
        var at = 8
        var header: [UInt8] = []
        var data: [UInt8] = []
        while at + 12 <= bytes.count {
            let count = word(at)
            guard at + 12 + count <= bytes.count else { return nil }
            let body = bytes[at + 8..<at + 8 + count]
            switch String(decoding: bytes[at + 4..<at + 8], as: UTF8.self) {
            case "IHDR": header = Array(body)
            case "IDAT": data += body
            default: break
            }
            at += 12 + count
        }
        guard header.count == 13, header[8] == 8, header[9] == 2 || header[9] == 6, header[12] == 0, data.count > 2
        else {
            return nil
        }
        width = header[0..<4].reduce(0) { $0 << 8 | Int($1) }
        height = header[4..<8].reduce(0) { $0 << 8 | Int($1) }
        channelCount = header[9] == 2 ? 3 : 4
        let stride = width * channelCount
        guard let raw = Inflate.bytes(data, from: 2, capacity: (stride + 1) * height),
            raw.count == (stride + 1) * height
        else { return nil }
        samples = [UInt8](repeating: 0, count: stride * height)
        for row in 0..<height {
            let filter = raw[row * (stride + 1)]
            for column in 0..<stride {
                let value = raw[row * (stride + 1) + 1 + column]
                let place = row * stride + column
                let left = column >= channelCount ? samples[place - channelCount] : 0
                let up = row > 0 ? samples[place - stride] : 0
                let corner = row > 0 && column >= channelCount ? samples[place - stride - channelCount] : 0
                let prediction: UInt8
                switch filter {
                case 0: prediction = 0
                case 1: prediction = left
                case 2: prediction = up
                case 3: prediction = UInt8((Int(left) + Int(up)) / 2)
                case 4:
                    let estimate = Int(left) + Int(up) - Int(corner)
                    let distances = (abs(estimate - Int(left)), abs(estimate - Int(up)), abs(estimate - Int(corner)))
                    prediction =
                        distances.0 <= distances.1 && distances.0 <= distances.2
                        ? left : distances.1 <= distances.2 ? up : corner
                default: return nil
                }
                samples[place] = value &+ prediction
            }
        }
    }

    /// `0xrrggbb`.
    func pixel(_ x: Int, _ y: Int) -> UInt32 {
        let place = (y * width + x) * channelCount
        return UInt32(samples[place]) << 16 | UInt32(samples[place + 1]) << 8 | UInt32(samples[place + 2])
    }

    /// How often each colour occurs.
    var histogram: [UInt32: Int] {
        var result: [UInt32: Int] = [:]
        for y in 0..<height { for x in 0..<width { result[pixel(x, y), default: 0] += 1 } }
        return result
    }
}

enum Inflate {
    private struct Huffman {
        var counts = [Int](repeating: 0, count: 16)
        var symbols: [Int] = []

        init(_ lengths: [Int]) {
            for length in lengths { counts[length] += 1 }
            counts[0] = 0
            for length in 1...15 {
                symbols += lengths.indices.filter { lengths[$0] == length }
            }
        }
    }

    private struct Bits {
        let bytes: [UInt8]
        var at: Int
        var buffer: UInt32 = 0
        var count = 0

        mutating func bit() -> Int {
            if count == 0 {
                buffer = at < bytes.count ? UInt32(bytes[at]) : 0
                at += 1
                count = 8
            }
            count -= 1
            defer { buffer >>= 1 }
            return Int(buffer & 1)
        }

        mutating func bits(_ number: Int) -> Int {
            var value = 0
            for index in 0..<number { value |= bit() << index }
            return value
        }

        mutating func symbol(_ code: Huffman) -> Int? {
            var value = 0
            var first = 0
            var index = 0
            for length in 1...15 {
                value |= bit()
                let count = code.counts[length]
                if value - count < first { return code.symbols[index + value - first] }
                index += count
                first = (first + count) << 1
                value <<= 1
            }
            return nil
        }
    }

    static func bytes(_ data: [UInt8], from start: Int, capacity: Int) -> [UInt8]? {
        let lengthBase = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
            227, 258,
        ]
        let lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]
        let distanceBase = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
            6145,
            8193, 12289, 16385, 24577,
        ]
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
        var input = Bits(bytes: data, at: start)
        var output: [UInt8] = []
        output.reserveCapacity(capacity)
        var isLast = false
        while !isLast {
            guard input.at <= data.count else { return nil }
            isLast = input.bit() == 1
            let literals: Huffman
            let distances: Huffman
            switch input.bits(2) {
            case 0:
                input.count = 0
                guard input.at + 4 <= data.count else { return nil }
                let count = Int(data[input.at]) | Int(data[input.at + 1]) << 8
                guard input.at + 4 + count <= data.count else { return nil }
                output += data[input.at + 4..<input.at + 4 + count]
                input.at += 4 + count
                continue
            case 1:
                literals = Huffman((0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 })
                distances = Huffman([Int](repeating: 5, count: 30))
            case 2:
                let literalCount = input.bits(5) + 257
                let distanceCount = input.bits(5) + 1
                var lengths = [Int](repeating: 0, count: 19)
                for index in 0..<(input.bits(4) + 4) { lengths[order[index]] = input.bits(3) }
                let code = Huffman(lengths)
                var all: [Int] = []
                while all.count < literalCount + distanceCount {
                    guard let symbol = input.symbol(code) else { return nil }
                    switch symbol {
                    case ..<16: all.append(symbol)
                    case 16:
                        guard let last = all.last else { return nil }
                        all += [Int](repeating: last, count: 3 + input.bits(2))
                    case 17: all += [Int](repeating: 0, count: 3 + input.bits(3))
                    default: all += [Int](repeating: 0, count: 11 + input.bits(7))
                    }
                }
                literals = Huffman(Array(all[..<literalCount]))
                distances = Huffman(Array(all[literalCount..<(literalCount + distanceCount)]))
            default: return nil
            }
            while true {
                guard input.at <= data.count + 1, let symbol = input.symbol(literals) else { return nil }
                if symbol == 256 { break }
                if symbol < 256 {
                    output.append(UInt8(symbol))
                    continue
                }
                guard symbol < 286 else { return nil }
                let length = lengthBase[symbol - 257] + input.bits(lengthExtra[symbol - 257])
                guard let code = input.symbol(distances), code < 30 else { return nil }
                let distance = distanceBase[code] + input.bits(code < 4 ? 0 : code / 2 - 1)
                guard distance <= output.count else { return nil }
                for _ in 0..<length { output.append(output[output.count - distance]) }
            }
        }
        return output
    }
}
