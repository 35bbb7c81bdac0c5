// Tests of IsolationSuite.
