package pglock_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// The test binary is also the worker processes of the chaos test.
func TestMain(m *testing.M) {
	if arguments := os.Getenv(workerVariable); arguments != "" {
		if err := workerMain(arguments); err != nil {
			os.Stderr.WriteString("worker: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	goleak.VerifyTestMain(pgtest.Main{M: m})
}
