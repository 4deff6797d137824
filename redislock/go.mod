module github.com/seed-46f81e6d/keylock/redislock

go 1.26.0

require (
	github.com/redis/rueidis v1.0.79
	github.com/seed-46f81e6d/keylock v0.1.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
