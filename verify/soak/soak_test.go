package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestShortSoak(t *testing.T) {
	require.NoError(t, soak(os.Stdout, config{length: 4 * time.Second, goroutines: 2000, keys: 500, every: time.Second}))
}
