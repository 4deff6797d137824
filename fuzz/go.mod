module github.com/seed-46f81e6d/keylock/fuzz

go 1.25

require (
	github.com/seed-46f81e6d/keylock v0.1.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/seed-46f81e6d/keylock => ../
