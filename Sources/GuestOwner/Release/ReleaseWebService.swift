// The owner over HTTP: requests and responses as values. A server carries them.
//
//     POST /secret-release/v1                       one message of SecretRelease, and its answer
//     POST /kbs/v0/auth, POST /kbs/v0/attest,
//     GET  /kbs/v0/resource/REPOSITORY/TYPE/TAG     RCAR, as confidential-containers' clients speak it

import JSONText
import SecretRelease

/// A request over HTTP.
public struct WebRequest: Sendable {
    public var method: String
    /// Path, perhaps with a query.
    public var target: String
    public var headers: [(String, String)]
    public var body: [UInt8]
    /// Where it came from, for the log.
    public var peer: String

    public init(method: String, target: String, headers: [(String, String)] = [], body: [UInt8] = [], peer: String) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.peer = peer
    }

    /// The values of a header, whose name has no case.
    func header(_ name: String) -> [String] {
        headers.filter { $0.0.lowercased() == name }.map(\.1)
    }
}

/// A response over HTTP; its length and its caching are the server's matter.
public struct WebResponse: Sendable {
    public var status: Int
    public var headers: [(String, String)]
    public var body: [UInt8]

    static func json(_ status: Int, _ object: JSONObject, _ headers: [(String, String)] = []) -> WebResponse {
        WebResponse(
            status: status, headers: [("content-type", "application/json")] + headers, body: Array(object.text.utf8))
    }
}

/// Answers requests. Any thread may ask.
public final class ReleaseWebService: Sendable {
    /// Path of the own protocol.
    public static let path = "/secret-release/v1"

    private let service: ReleaseService
    private let rcar: RCARService

    public init(_ service: ReleaseService) {
        self.service = service
        rcar = RCARService(service)
    }

    public func respond(to request: WebRequest) -> WebResponse {
        let path = String(request.target.prefix { $0 != "?" })
        if path == Self.path {
            guard request.method == "POST" else { return Self.wrongMethod("POST") }
            return WebResponse(
                status: 200, headers: [("content-type", "application/octet-stream")],
                body: service.answer(request.body, peer: request.peer))
        }
        return rcar.respond(to: request, path: path)
    }

    static func wrongMethod(_ right: String) -> WebResponse {
        WebResponse(status: 405, headers: [("allow", right)], body: [])
    }
}
