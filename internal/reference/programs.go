package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// others are the programs that are no part of hallmark: they run beside devices and in factories, and share no code with the server but formats. They
// are asked what they can do, as a person would ask them.
var others = []string{"hallmark-agent", "hallmark-station"}

// programs lists the commands of the programs beside hallmark.
func programs(root string, w *bytes.Buffer) (err error) {
	dir, err := os.MkdirTemp("", "reference")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx := context.Background() // it runs when the tree is built, and ends with that
	head(w, "Programs", "What runs on a device and at a programming station. Each says the same of itself with `--help`.")
	for _, name := range others {
		build := exec.CommandContext(ctx, "go", "build", "-o", dir, "./cmd/"+name)
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
		if err := program(ctx, filepath.Join(dir, name), w, name); err != nil {
			return err
		}
	}
	return nil
}

// listed finds a command in what a program says of itself.
var listed = regexp.MustCompile(`(?m)^  ([a-z-]+) +\S`)

// program writes what a program says of itself and of the commands below path.
func program(ctx context.Context, binary string, w *bytes.Buffer, path ...string) error {
	help, err := exec.CommandContext(ctx, binary, append(path[1:], "--help")...).Output()
	if err != nil {
		return fmt.Errorf("%s --help: %w", strings.Join(path, " "), err)
	}
	text, usage, found := strings.Cut(string(help), "Usage:\n")
	if !found {
		return fmt.Errorf("%s --help does not say how it is used", strings.Join(path, " "))
	}
	fmt.Fprintf(w, "%s %s\n\n%s\n\n```\n%s\n```\n\n", strings.Repeat("#", len(path)+1), strings.Join(path, " "), strings.TrimSpace(text), flat(usage))
	_, commands, _ := strings.Cut(usage, "Available Commands:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	for _, c := range listed.FindAllStringSubmatch(commands, -1) {
		if c[1] == "help" || c[1] == "completion" {
			continue
		}
		if err := program(ctx, binary, w, append(path, c[1])...); err != nil {
			return err
		}
	}
	return nil
}

// flat is how a program is used, without what cobra says of every one.
func flat(usage string) string {
	var out []string
	for line := range strings.Lines(usage) {
		line = strings.TrimRight(line, "\n ")
		if strings.HasPrefix(line, `Use "`) || strings.HasPrefix(line, "  -h, --help") || strings.HasPrefix(line, "  help ") {
			continue
		}
		out = append(out, strings.TrimPrefix(line, "  "))
	}
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.Join(out, "\n")), "Flags:"))
}
