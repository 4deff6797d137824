package peers

import (
	"context"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Table is the ceiling of the design: keylock's own table, called by the one goroutine
// that it is for, without any message.
var Table = Peer{
	Name:   "table",
	About:  "no lock: this library's table alone, called by one goroutine",
	Traits: Traits{Serial: true, Study: true},
	Open: func() Locker {
		return tableLocker{table.New[string](table.Config{})}
	},
}

type tableLocker struct {
	table *table.Table[string]
}

func (l tableLocker) Client() Client { return &tableClient{table: l.table} }
func (l tableLocker) Close()         {}

type tableClient struct {
	table   *table.Table[string]
	request table.Request[string]
	token   table.Token[string] // of its grant, once it is granted
}

// Lock joins the queue of key and does not wait.
func (c *tableClient) Lock(_ context.Context, key string) error {
	c.request = table.Request[string]{Key: key, Tag: c}
	c.token = c.table.Join(&c.request).Token
	return nil
}

func (c *tableClient) Unlock() {
	for _, grant := range c.table.Release(c.token) {
		grant.Tag.(*tableClient).token = grant.Token
	}
}
