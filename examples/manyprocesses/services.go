package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// service is a lock service that the program starts for itself.
type service struct {
	// serve is the program of the server, with its files in dir. It prints its endpoint and ends
	// with its standard input.
	serve func(dir string, in io.Reader, out io.Writer) error

	connect func(endpoint string) (site, error)
}

// site is a process's way to the service, in which the counter is kept too.
type site interface {
	engine() (cohort.Engine, error)
	read(ctx context.Context) (counter, writes int, err error)
	write(ctx context.Context, lock cohort.Lock, counter int) error // ErrLost if the lock is not held any more
	close() error
}

var services = map[string]service{
	"etcd":     {serveEtcd, connectEtcd},
	"postgres": {servePostgres, connectPostgres},
	"redis":    {serveRedis, connectRedis},
}

// engines returns the names of the services.
func engines() string {
	return strings.Join(slices.Sorted(maps.Keys(services)), ", ")
}

const logName = "server.log"

// startServer starts the engine's server, and returns when it can serve. failed receives if it ends before stop is called.
func startServer(engine, dir string) (endpoint string, failed <-chan error, stop func(), err error) {
	cmd, err := self(serverVariable + "=" + engine + " " + dir)
	if err != nil {
		return "", nil, nil, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, nil, err
	}
	endpoint, _ = bufio.NewReader(out).ReadString('\n')
	ended := make(chan error, 1)
	go func() {
		if err := cmd.Wait(); err != nil {
			ended <- fmt.Errorf("%s has ended: %s", engine, reason(said.String(), filepath.Join(dir, logName), err))
		}
		close(ended)
	}()
	stop = func() {
		_ = in.Close()
		for range ended {
		}
	}
	if endpoint == "" {
		return "", nil, nil, <-ended
	}
	return strings.TrimSpace(endpoint), ended, stop, nil
}

// reason finds in what a server has left why it has ended.
func reason(said, log string, err error) string {
	written, _ := os.ReadFile(log)
	for _, known := range []string{"no space left on device", "file too large", "disk quota exceeded"} {
		if strings.Contains(said+string(written), known) {
			return known + ", while it wrote its files in " + filepath.Dir(log)
		}
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(said), "\n"); line != "" {
		return line
	}
	return err.Error()
}
