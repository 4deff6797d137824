module github.com/seed-46f81e6d/keylock/benchmarks

go 1.26.0

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/anthdm/hollywood v1.0.5
	github.com/moby/locker v1.0.1
	github.com/seed-46f81e6d/keylock v0.0.0
	golang.org/x/sync v0.24.0
	gonum.org/v1/gonum v0.17.0
	k8s.io/utils v0.0.0-20261023123148-ca04ba58ecab
)

require (
	github.com/DataDog/gostackparse v0.7.0 // indirect
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/zeebo/xxh3 v1.0.2 // indirect
	google.golang.org/protobuf v1.32.0 // indirect
)

replace github.com/seed-46f81e6d/keylock => ../
