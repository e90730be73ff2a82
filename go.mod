module scache

go 1.26
