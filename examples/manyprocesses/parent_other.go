//go:build !linux

package main

import "syscall"

// dieWithParent leaves it to the end of its standard input to end a process whose parent is gone.
func dieWithParent() *syscall.SysProcAttr { return nil }
