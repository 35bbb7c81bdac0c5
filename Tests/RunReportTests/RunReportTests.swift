// Tests of RunReport.
