module github.com/seed-46f81e6d/keylock/keylockcheck/golangci

go 1.25.0

require (
	github.com/golangci/plugin-module-register v0.1.2
	github.com/seed-46f81e6d/keylock/keylockcheck v0.1.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/tools v0.44.0
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/mod v0.35.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
)
