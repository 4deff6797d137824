// Command soak keeps managers under load for as long as one likes: tens of thousands of
// goroutines make all the calls, alone and in sessions, on a few hot keys and many cold
// ones, contexts end at random, and managers with every choice of options start, shut down
// and close all the while. What a lock guards are plain counters, so one broken exclusion shows. In the end everything must be as it was
// in the beginning.
//
//	go run -C verify ./soak -for=10m
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	var c config
	flag.DurationVar(&c.length, "for", time.Minute, "how long")
	flag.IntVar(&c.goroutines, "goroutines", 20_000, "how many make calls")
	flag.IntVar(&c.keys, "keys", 10_000, "how many keys there are")
	flag.DurationVar(&c.every, "every", 10*time.Second, "how often to print a line")
	flag.Parse()
	if err := soak(os.Stdout, c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
