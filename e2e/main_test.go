package e2e

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is also the programs that the tests start as processes of their own.
const roleVariable = "KEYLOCK_E2E_ROLE"

var roles = map[string]func() error{
	"node":    nodeMain,
	"worker":  workerMain,
	"holder":  holderMain,
	"figures": figureMain,
}

var chaosTime = flag.Duration("chaos", time.Minute, "how long each chaos test goes on")

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := roles[role](); err != nil {
			os.Stderr.WriteString(role + ": " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) { // unless told otherwise
		_ = flag.Set("test.parallel", "8") // tests that run in parallel wait most of the time
	}
	goleak.VerifyTestMain(m)
}
