//go:build kept

package fuzz

func init() { oneByOne = false }
