package report

import (
	"flag"
	"fmt"
	"os"
)

// Usage makes a flag set begin its help with what the program does.
func Usage(flags *flag.FlagSet, about string) {
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s\n\nUsage of %s:\n", about, flags.Name())
		flags.PrintDefaults()
	}
}

// Writable returns an error if a file could not be written, so that this is noticed before
// the work whose result it should hold. It changes nothing. An empty name is no file.
func Writable(file string) error {
	if file == "" {
		return nil
	}
	_, err := os.Stat(file)
	isNew := os.IsNotExist(err)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if isNew {
		return os.Remove(file)
	}
	return nil
}
