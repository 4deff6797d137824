package main

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A test that needs a second process starts its own binary with childRole set.
const (
	childRole    = "KAFKABATCH_CHILD"
	commandRole  = "command"  // be the command, with the flags given
	consumerRole = "consumer" // be childConsumer, with its arguments
	streamerRole = "streamer" // be childStreamer, with its arguments
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case commandRole:
		main()
	case consumerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childConsumer(ctx, os.Args[1:])
	case streamerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childStreamer(ctx, os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}
