// Package e2e tests cohort and etcdlock against real etcd servers, real operating-system
// processes and a network that fails. It is a module of its own, so that importing
// etcdlock does not pull in the server.
//
//	go test -C e2e .                                       # about three minutes
//	go test -C e2e -race -skip Figure .                    # the race detector's, which has other figures
//	go test -C e2e -run Chaos -timeout 30m . -chaos 10m    # all of them side by side, for ten minutes
//	go test -C e2e -run LeaderMoves . -moves 90            # leadership moves as often under load
//	go test -C e2e -run Figure -v .                        # in turns with concurrency.Mutex
//
// The tests whose names begin with TestP1 to TestP12 each provoke one of the ways in which locks
// by lease go wrong.
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
