package main

import "syscall"

// dieWithParent has a process killed when the one that started it dies, also when it is stopped.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
