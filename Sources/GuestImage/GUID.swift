// The GUIDs of firmware images.

import SEVABI

typealias GUID = SEVABI.GUID

extension GUID {
    static let tableFooter = GUID("96b582de-1fb2-45f7-baea-a366c55a082d")
    static let sevESResetBlock = GUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
    static let sevHashesTable = GUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
    static let sevSecretArea = GUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
    static let sevMetadata = GUID("dc886566-984a-4798-a75e-5585a7bf67cc")
    static let hashesTableHeader = GUID("9438d606-4f22-4cc9-b479-a793d411fd21")
    static let commandLineHash = GUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
    static let initrdHash = GUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
    static let kernelHash = GUID("4de79437-abd2-427f-b835-d5b172d2045b")
}
