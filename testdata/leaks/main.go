// Command leaks drops what must be closed, and prints what Go's goroutine leak profile says.
//
//	go run ./testdata/leaks                                              # with Go 1.27
//	GOEXPERIMENT=goroutineleakprofile go run ./testdata/leaks            # with Go 1.26
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

// used is a manager that is in use: its goroutines are no leak.
var used = keylock.Start[string](context.Background())

func main() {
	keep()
	dropManager()
	dropGroup()
	profile := pprof.Lookup("goroutineleak")
	if profile == nil {
		log.Fatal("this Go has no goroutine leak profile")
	}
	// Until all four goroutines wait where they will, or for ten seconds.
	var text bytes.Buffer
	for range 100 {
		time.Sleep(100 * time.Millisecond)
		runtime.GC() // twice, because the manager's sync.Pool makes it reachable
		runtime.GC() // until it has not been used between two collections
		text.Reset()
		if err := profile.WriteTo(&text, 1); err != nil {
			log.Fatal(err)
		}
		if bytes.Contains(text.Bytes(), []byte("total 4\n")) {
			break
		}
	}
	fmt.Print(&text)
}

// dropManager leaks a manager, and a request that waits for a key of it.
func dropManager() {
	locks := keylock.Start[string](context.Background())
	if _, ok := locks.TryAcquire("order/42"); !ok { // and is never released
		panic("held")
	}
	go waitForOrder(locks)
}

func waitForOrder(locks *keylock.Manager[string]) {
	_, _ = locks.Acquire(context.Background(), "order/42")
}

// dropGroup leaks a group, by work that waits for a channel that is dropped too.
func dropGroup() {
	group := inorder.New[string](context.Background(), 1)
	reply := make(chan int)
	_ = group.Go(context.Background(), "order/42", func(context.Context) error {
		<-reply
		return nil
	})
	go waitForGroup(group)
}

func waitForGroup(group *inorder.Group[string]) {
	_ = group.Wait()
}

// keep uses the manager that is no leak: a request waits for a lock that is not released yet.
func keep() {
	if _, ok := used.TryAcquire("order/7"); !ok {
		panic("held")
	}
	go waitUsed()
	for {
		if stats, _ := used.Stats(context.Background()); stats.Waiting == 1 {
			return
		}
		runtime.Gosched()
	}
}

func waitUsed() {
	_, _ = used.Acquire(context.Background(), "order/7")
}
