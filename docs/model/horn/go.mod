module culvertmodel/horn

go 1.26.0
