// Command fetch shows that each module of this repository can be used from outside it. It
// packs them into a module proxy of files, as they are committed, and then does what a user
// would do who has never seen the repository: it fetches one module alone into an empty
// module cache, builds the program in its README, runs it if it needs no server, and installs its
// commands.
//
//	go run -C verify ./fetch
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const (
	root    = "github.com/seed-46f81e6d/keylock"
	version = "v0.1.0" // the next release
)

// notFetched are modules that nothing outside the repository requires.
var notFetched = []string{"benchmarks", "e2e", "fuzz", "verify"}

func main() {
	log.SetFlags(0)
	only := flag.String("only", "", "fetch this folder's module alone; \".\" is the core")
	flag.Parse()
	if err := run(*only); err != nil {
		log.Fatal(err)
	}
}

func run(only string) error {
	repository, err := output(".", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	proxy := filepath.Join(temp, "proxy")
	folders, err := modules(repository)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := pack(proxy, repository, folder); err != nil {
			return fmt.Errorf("packing %s: %w", folder, err)
		}
	}
	env, err := environment(temp, proxy)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if only != "" && folder != only {
			continue
		}
		if err := fetch(filepath.Join(temp, "user", folder), env, repository, folder); err != nil {
			return fmt.Errorf("fetching %s: %w", path(folder), err)
		}
	}
	return nil
}

// modules returns the folders of the modules that can be fetched, the core first.
func modules(repository string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(repository, "go.work"))
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork("go.work", text, nil)
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, use := range work.Use {
		if folder := filepath.ToSlash(filepath.Clean(use.Path)); !slices.Contains(notFetched, filepath.Base(folder)) {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders)
	return folders, nil
}

func path(folder string) string {
	if folder == "." {
		return root
	}
	return root + "/" + folder
}

// pack puts a module into the proxy, as the last commit has it.
func pack(proxy, repository, folder string) error {
	at := filepath.Join(proxy, filepath.FromSlash(path(folder)), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(repository, folder, "go.mod"))
	if err != nil {
		return err
	}
	file, err := modfile.Parse("go.mod", mod, nil)
	if err != nil {
		return err
	}
	if len(file.Replace) > 0 {
		return errors.New("its go.mod replaces modules, so go run and go install refuse it")
	}
	tree, err := checkout(repository, folder)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	archive, err := os.Create(filepath.Join(at, version+".zip"))
	if err != nil {
		return err
	}
	err = zip.CreateFromDir(archive, module.Version{Path: path(folder), Version: version}, tree)
	return errors.Join(
		err,
		archive.Close(),
		os.WriteFile(filepath.Join(at, version+".mod"), mod, 0o644),
		os.WriteFile(filepath.Join(at, version+".info"), []byte(`{"Version":"`+version+`"}`), 0o644),
		os.WriteFile(filepath.Join(at, "list"), []byte(version+"\n"), 0o644),
	)
}

// checkout returns a copy of a folder as the last commit has it, with the license of the
// repository, as the go command packs it.
func checkout(repository, folder string) (string, error) {
	tree, err := os.MkdirTemp("", "fetch-tree-*")
	if err != nil {
		return "", err
	}
	unpack := "git archive HEAD:" + strings.TrimPrefix(folder, ".") + " | tar -x -C " + tree + " && cp -n LICENSE " + tree
	if _, err := output(repository, nil, "sh", "-c", unpack); err != nil {
		return "", errors.Join(err, os.RemoveAll(tree))
	}
	return tree, nil
}

// environment is that of a user who has an empty module cache. What this machine's cache
// has of other projects is offered as a proxy before the network.
func environment(temp, proxy string) ([]string, error) {
	cache, err := output(".", nil, "go", "env", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	next, err := output(".", nil, "go", "env", "GOPROXY")
	if err != nil {
		return nil, err
	}
	return append(os.Environ(),
		"GOWORK=off", "GOFLAGS=-modcacherw -buildvcs=false", "GONOSUMDB="+root+","+root+"/*",
		"GOMODCACHE="+filepath.Join(temp, "cache"),
		"GOBIN="+filepath.Join(temp, "bin"),
		"GOPROXY=file://"+proxy+",file://"+filepath.Join(cache, "cache", "download")+","+next,
	), nil
}

// program finds a Go program in a README, and the comment before it that says whether it
// runs without a server.
var program = regexp.MustCompile("(?s)(<!-- runs -->\n)?```go\n(package main\n.*?)```")

func fetch(user string, env []string, repository, folder string) error {
	if folder == "examples" {
		return example(env)
	}
	readme, err := os.ReadFile(filepath.Join(repository, folder, "README.md"))
	if err != nil {
		return err
	}
	found := program.FindSubmatch(readme)
	if folder == "keylockcheck/golangci" { // a plugin, which golangci-lint imports so
		found = [][]byte{nil, nil, fmt.Appendf(nil, "package main\n\nimport _ %q\n\nfunc main() {}\n", path(folder))}
	}
	if found == nil {
		return errors.New("its README has no program")
	}
	if err := os.MkdirAll(user, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(user, "main.go"), found[2], 0o644); err != nil {
		return err
	}
	for _, command := range []string{
		"go mod init example.com/user",
		"go get " + path(folder) + "@" + version,
		"go mod tidy",
		"go vet .",
		"go build -o user .",
	} {
		if _, err := output(user, env, strings.Fields(command)...); err != nil {
			return err
		}
	}
	commands, err := filepath.Glob(filepath.Join(repository, folder, "cmd", "*"))
	if err != nil {
		return err
	}
	for _, command := range commands {
		name := path(folder) + "/cmd/" + filepath.Base(command)
		if _, err := output(user, env, "go", "install", name+"@"+version); err != nil {
			return err
		}
		fmt.Printf("%s: installed\n", name)
	}
	if len(found[1]) == 0 {
		fmt.Printf("%s: fetched, builds\n", path(folder))
		return nil
	}
	said, err := output(user, env, "./user")
	if err != nil {
		return err
	}
	fmt.Printf("%s: fetched, runs: %q\n", path(folder), said)
	return nil
}

// example runs a program of the examples as the README does, by its version.
func example(env []string) error {
	said, err := output(os.TempDir(), env, "go", "run", path("examples")+"/kafkabatch@"+version)
	if err != nil {
		return err
	}
	lines := strings.Split(said, "\n")
	fmt.Printf("%s/kafkabatch: runs: %q\n", path("examples"), lines[len(lines)-1])
	return nil
}

// output runs a command and returns what it prints.
func output(dir string, env []string, command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, env
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}
