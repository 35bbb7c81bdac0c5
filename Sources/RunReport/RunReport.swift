// RunReport
