package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
)

// readLogs reads all logs that were asked for, or the made-up one.
func (t threatscore) readLogs(opts options) (log sshlog.Log, err error) {
	if len(opts.logs) == 0 {
		return log, log.Read(bytes.NewReader(makeUpLog(opts.events)))
	}
	for _, file := range opts.logs {
		if err := t.readLog(&log, file); err != nil {
			return log, fmt.Errorf("reading the log: %w", err)
		}
	}
	return log, nil
}

func (t threatscore) readLog(log *sshlog.Log, file string) error {
	if file == "-" {
		return log.Read(t.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return log.Read(f)
}
