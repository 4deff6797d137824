module github.com/seed-46f81e6d/keylock/verify

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/seed-46f81e6d/keylock v0.1.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	pgregory.net/rapid v1.3.0
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/mod v0.37.0
)

replace github.com/seed-46f81e6d/keylock => ../
