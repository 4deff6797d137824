package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// counter is a resource in etcd that checks tokens. It does nothing else against lost
// updates: what is written does not depend on what is there.
type counter struct {
	client *clientv3.Client
	name   string
	work   time.Duration // of an increment, between reading and writing
}

// errFenced means that the counter has seen a greater token.
var errFenced = errors.New("fenced off")

func (c counter) fence() string               { return c.name + "/fence" }
func (c counter) value() string               { return c.name + "/value" }
func (c counter) entry(t cohort.Token) string { return c.name + "/log/" + t.String() }

// read returns the count, and fences off every smaller token.
func (c counter) read(ctx context.Context, token cohort.Token) (int, error) {
	for {
		seen, err := c.client.Get(ctx, c.fence())
		if err != nil {
			return 0, err
		}
		unchanged := clientv3.Compare(clientv3.ModRevision(c.fence()), "=", 0)
		if len(seen.Kvs) > 0 {
			if string(seen.Kvs[0].Value) > token.String() {
				return 0, errFenced
			}
			unchanged = clientv3.Compare(clientv3.ModRevision(c.fence()), "=", seen.Kvs[0].ModRevision)
		}
		resp, err := c.client.Txn(ctx).If(unchanged).Then(
			clientv3.OpPut(c.fence(), token.String()), clientv3.OpGet(c.value())).Commit()
		if err != nil {
			return 0, err
		}
		if !resp.Succeeded {
			continue
		}
		kvs := resp.Responses[1].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return 0, nil
		}
		return strconv.Atoi(string(kvs[0].Value))
	}
}

// write sets the count, unless a greater token was seen, and notes who did it. It
// tries until etcd replies: writing the same again changes nothing.
func (c counter) write(ctx context.Context, token cohort.Token, count int) error {
	for {
		mine := clientv3.Compare(clientv3.Value(c.fence()), "=", token.String())
		n := strconv.Itoa(count)
		resp, err := c.client.Txn(ctx).If(mine).
			Then(clientv3.OpPut(c.value(), n), clientv3.OpPut(c.entry(token), n)).
			Else(clientv3.OpGet(c.entry(token))).Commit()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			time.Sleep(20 * time.Millisecond)
		case resp.Succeeded, len(resp.Responses[0].GetResponseRange().Kvs) > 0: // now, or by a try that got no reply
			return nil
		default:
			return errFenced
		}
	}
}

// increment adds one.
func (c counter) increment(ctx context.Context, token cohort.Token) (count int, err error) {
	count, err = c.read(ctx, token)
	if err != nil {
		return 0, err
	}
	time.Sleep(c.work)
	return count + 1, c.write(ctx, token, count+1)
}

// written returns what was written, in the order of the tokens.
func (c counter) written(ctx context.Context) (counts []int, tokens []string, err error) {
	prefix := c.name + "/log/"
	resp, err := c.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, nil, err
	}
	for _, kv := range resp.Kvs {
		n, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		counts = append(counts, n)
		tokens = append(tokens, string(kv.Key[len(prefix):]))
	}
	return counts, tokens, nil
}
