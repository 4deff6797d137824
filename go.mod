module github.com/seed-46f81e6d/keylock

go 1.25
