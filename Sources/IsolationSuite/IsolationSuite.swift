// IsolationSuite
