//go:build !unix

package postgres

import (
	"errors"
	"os/exec"
)

type account struct{}

func unprivileged() (*account, error) {
	return nil, errors.New("a private PostgreSQL server needs a Unix system; name a server by its postgres:// URL")
}

func (*account) own(string) error { return nil }

func (*account) run(*exec.Cmd) {}
