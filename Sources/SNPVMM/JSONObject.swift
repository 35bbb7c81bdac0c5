// Launch logs are JSON; their writer is shared with the owner.

import JSONText

/// One JSON object under construction.
public typealias JSONObject = JSONText.JSONObject
