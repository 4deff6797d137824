package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// serveRedis starts redis-server with its files in dir, and ends it with its standard input. It is reached by a
// socket in dir.
func serveRedis(dir string, in io.Reader, out io.Writer) error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New("redis-server is not installed")
	}
	socket := filepath.Join(dir, "socket")
	server := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", dir, "--logfile", filepath.Join(dir, logName),
		"--save", "", "--appendonly", "yes", "--daemonize", "no")
	server.SysProcAttr = dieWithParent()
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("redis-server has ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Fprintln(out, socket)
	stopped := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		stopped <- err
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("redis-server has ended: %w", err)
	case err := <-stopped:
		_ = server.Process.Signal(syscall.SIGKILL) // its files go too
		<-ended
		return err
	}
}

// redisSite is a process's way to Redis.
type redisSite struct {
	client rueidis.Client
}

func connectRedis(socket string) (site, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       []string{socket},
		ForceSingleClient: true,
		DisableCache:      true,
		ConnWriteTimeout:  time.Second,
		DialCtxFn: func(ctx context.Context, socket string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	})
	return redisSite{client}, err
}

func (s redisSite) close() error {
	s.client.Close()
	return nil
}

func (s redisSite) engine() (cohort.Engine, error) {
	return redislock.New(rueidisadapter.New(s.client), redislock.WithTTL(leaseTTL),
		redislock.WithQuarantine(0)) // this server is new and is not started again, so it has forgotten nothing
}

const counterHash = "manyprocesses"

func (s redisSite) read(ctx context.Context) (counter, writes int, err error) {
	got, err := s.client.Do(ctx, s.client.B().Hmget().Key(counterHash).Field("counter", "writes").Build()).ToArray()
	if err != nil || got[0].IsNil() {
		return 0, 0, err
	}
	texts := make([]string, 2)
	for i := range texts {
		if texts[i], err = got[i].ToString(); err != nil {
			return 0, 0, err
		}
	}
	if counter, err = strconv.Atoi(texts[0]); err == nil {
		writes, err = strconv.Atoi(texts[1])
	}
	return counter, writes, err
}

var writeIfHeld = rueidis.NewLuaScript(`
	if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
		return redis.error_reply('FENCED')
	end
	redis.call('HINCRBY', KEYS[2], 'writes', 1)
	return redis.call('HSET', KEYS[2], 'counter', ARGV[3])`)

// write sets the counter on the condition that the lock is still held: the script that writes checks that.
func (s redisSite) write(ctx context.Context, lock cohort.Lock, counter int) error {
	hash, field, epoch := lock.Grant().(*redislock.Grant).Guard()
	err := writeIfHeld.Exec(ctx, s.client, []string{hash, counterHash}, []string{field, epoch, strconv.Itoa(counter)}).Error()
	if err != nil && strings.HasPrefix(err.Error(), "FENCED") {
		return cohort.ErrLost
	}
	return err
}
