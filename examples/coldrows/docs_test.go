package main

import (
	"testing"

	"github.com/seed-46f81e6d/keylock/examples/internal/page"
)

func TestPagesShowThisPackage(t *testing.T) {
	page.Check(t, "../../docs/USE_CASES.md", "PostgreSQL: one hot row")
	page.Check(t, "../README.md", "coldrows")
}
