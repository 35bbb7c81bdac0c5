// Policies are JSON; their reader is shared with whoever else reads JSON.

import JSONText

/// A JSON value that was read.
public typealias JSONInput = JSONText.JSONInput
