package main

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A soak that makes no calls finds nothing.
func TestSoakOfNothingIsRefused(t *testing.T) {
	good := config{length: time.Millisecond, goroutines: 1, keys: 1, every: time.Second}
	for name, bad := range map[string]func(*config){
		"-for": func(c *config) { c.length = 0 }, "-goroutines": func(c *config) { c.goroutines = 0 },
		"-keys": func(c *config) { c.keys = -1 }, "-every": func(c *config) { c.every = 0 },
	} {
		c := good
		bad(&c)
		require.ErrorContains(t, soak(io.Discard, c), "want more than 0", name)
	}
}

func TestShortSoak(t *testing.T) {
	require.NoError(t, soak(os.Stdout, config{length: 4 * time.Second, goroutines: 2000, keys: 500, every: time.Second}))
}
