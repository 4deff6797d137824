package redislock

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"time"
)

// Client is what an Engine needs of a Redis client. Packages rueidisadapter and
// goredisadapter make one of the two usual clients; for another, both methods
// take about sixty lines.
//
// The methods are called from several goroutines at once, and return soon after
// their context ends. An error that the server replied has its text, which begins with a
// word in capitals such as NOPERM.
type Client interface {
	// Run runs the script with EVALSHA at the master that has its keys, which
	// are in one slot of a cluster, or with EVAL when the server does not know the
	// script. It does not repeat a request whose outcome is unknown. The script
	// returns an array of strings.
	//
	// If call.Replicas is not 0, WAIT call.Replicas call.Within follows on the same
	// connection, which nothing else uses meanwhile, and Run returns how
	// many replicas acknowledged.
	Run(ctx context.Context, call Call) (reply []string, acknowledged int, err error)

	// Subscribe calls message for what is published in the channel, and subscribed whenever
	// the subscription has begun, at the start and after a connection was lost. It
	// returns when ctx ends, or when it does not subscribe again by itself. With a client of a
	// cluster it uses SSUBSCRIBE. Neither function blocks.
	Subscribe(ctx context.Context, channel string, subscribed func(), message func(string)) error
}

// Call is one execution of a script.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Aside says that no lock waits for the call. It may use another connection: some clients are
	// slower on a connection that several goroutines use at once.
	Aside bool

	Replicas int           // how many replicas WAIT waits for; 0 is no WAIT
	Within   time.Duration // for how long at most; in whole milliseconds
}

// Script is a Lua script.
type Script struct {
	Source string
	SHA1   string // of Source, in hexadecimal digits
}

func newScript(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{Source: source, SHA1: hex.EncodeToString(sum[:])}
}
