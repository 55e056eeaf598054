module sheepdog

go 1.26
